//! From the service's errors to the kernel's numbers. Nothing else lives here.

use fuser::Errno;
use znodefs::ErrorCode;

use crate::naming::NameError;
use crate::service::ServiceError;

/// The errno that a system call shows for an error of the service.
pub fn from_code(code: ErrorCode) -> Errno {
    match code {
        ErrorCode::NoNode => Errno::ENOENT,
        ErrorCode::NodeExists => Errno::EEXIST,
        ErrorCode::NotEmpty => Errno::ENOTEMPTY,
        ErrorCode::NoAuth | ErrorCode::AuthFailed | ErrorCode::SessionClosedRequireSaslAuth => {
            Errno::EACCES
        }
        // An ephemeral znode can have no children, whoever asks.
        ErrorCode::NoChildrenForEphemerals => Errno::EPERM,
        ErrorCode::BadArguments | ErrorCode::InvalidAcl => Errno::EINVAL,
        ErrorCode::BadVersion
        | ErrorCode::SessionExpired
        | ErrorCode::SessionMoved
        | ErrorCode::UnknownSession => Errno::ESTALE,
        ErrorCode::NotReadOnly => Errno::EROFS,
        ErrorCode::QuotaExceeded => Errno::EDQUOT,
        ErrorCode::Unimplemented
        | ErrorCode::EphemeralOnLocalSession
        | ErrorCode::ReconfigDisabled => Errno::EOPNOTSUPP,
        ErrorCode::ConnectionLoss | ErrorCode::OperationTimeout | ErrorCode::RequestTimeout => {
            Errno::ETIMEDOUT
        }
        ErrorCode::ThrottledOp | ErrorCode::ReconfigInProgress => Errno::EAGAIN,
        ErrorCode::SystemError
        | ErrorCode::RuntimeInconsistency
        | ErrorCode::DataInconsistency
        | ErrorCode::MarshallingError
        | ErrorCode::NewConfigNoQuorum
        | ErrorCode::ApiError
        | ErrorCode::InvalidCallback
        | ErrorCode::NoWatcher
        | ErrorCode::Unknown(_) => Errno::EIO,
    }
}

/// The errno of a request that came to nothing.
pub fn from_service(error: &ServiceError) -> Errno {
    match error {
        ServiceError::Code(code) => from_code(*code),
        ServiceError::TimedOut | ServiceError::OutcomeUnknown => Errno::ETIMEDOUT,
        ServiceError::SessionExpired => Errno::ESTALE,
        ServiceError::TooLarge => Errno::EFBIG,
        ServiceError::InvalidPath => Errno::EINVAL,
        ServiceError::Protocol | ServiceError::Closed => Errno::EIO,
    }
}

/// The errno of a name at creation. A lookup of a name that no znode can have finds nothing.
pub fn from_name(error: NameError) -> Errno {
    match error {
        NameError::TooLong => Errno::ENAMETOOLONG,
        NameError::Invalid | NameError::Suffix(_) => Errno::EINVAL,
    }
}
