//! From disk to memory: the newest usable snapshot, the log behind it, and a new epoch.

use std::io;
use std::sync::Arc;

use tracing::info;
use znodefs::{Epoch, Zxid};

use super::{Disks, StartError, Surroundings};
use crate::codec;
use crate::config::ServerConfig;
use crate::ensemble::membership;
use crate::persistence::file_header::{FileHeader, FileKind};
use crate::persistence::{
    EnsembleId, EpochError, Storage, StorageError, StorageOptions, StorageParts, small_file,
};
use crate::service::Database;
use crate::session_id::PasswordKey;
use crate::tree::{DataTree, TreeRestorer};
use crate::txn::Txn;

/// The file that holds what session passwords are made with.
const PASSWORD_KEY_NAME: &str = "sessionKey";

/// What a start found.
pub struct Recovered {
    /// The state as of the last durable transaction.
    pub database: Arc<Database>,
    /// Log, snapshots and epochs; this start's epoch is accepted and current.
    pub storage: StorageParts,
    /// What session passwords are made with.
    pub password_key: PasswordKey,
    /// Transactions replayed from the log.
    pub replayed_txns: u64,
}

/// Reads everything there is and begins a new epoch, durably.
pub(super) fn recover(
    config: &ServerConfig,
    disks: &Disks,
    surroundings: &Surroundings,
) -> Result<Recovered, StartError> {
    let new_ensemble = EnsembleId(surroundings.random_bytes()?);
    let options = StorageOptions {
        preallocate: config.log_preallocation,
        force_sync: config.force_sync,
        ..StorageOptions::new(u64::from(config.server_id.0), Some(new_ensemble))
    };
    let storage = Storage::open(Arc::clone(&disks.data), Arc::clone(&disks.log), options)?;
    // It may have been a member of an ensemble.
    if let Some(identity) = storage.identity() {
        membership::check_alone(config, disks, identity.ensemble_id)?;
    }
    storage.check_committed()?;
    let hash_seed = surroundings.random_number()?;
    let (tree, replayed_txns) = rebuild_tree(&storage, hash_seed)?;
    let mut storage = storage.into_parts()?;
    begin_epoch(&mut storage)?;
    let password_key = password_key(disks, storage.identity.ensemble_id, surroundings)?;
    let database = Arc::new(Database::new(tree, surroundings.random_number()?));
    Ok(Recovered { database, storage, password_key, replayed_txns })
}

/// How the directory of a member of an ensemble is opened.
pub(crate) fn member_storage_options(config: &ServerConfig) -> StorageOptions {
    StorageOptions {
        preallocate: config.log_preallocation,
        force_sync: config.force_sync,
        ..StorageOptions::new(u64::from(config.server_id.0), None)
    }
}

/// The newest usable snapshot's tree, and what it contains for certain.
pub(crate) fn restore_tree(
    storage: &Storage,
    hash_seed: u64,
) -> Result<Option<(Zxid, DataTree)>, StorageError> {
    storage.restore(|reader| {
        let mut restorer = TreeRestorer::new(hash_seed);
        while let Some(block) = reader.next_block()? {
            restorer.block(block)?;
        }
        Ok(restorer.finish()?)
    })
}

fn rebuild_tree(storage: &Storage, hash_seed: u64) -> Result<(DataTree, u64), StorageError> {
    let (from, mut tree) = match restore_tree(storage, hash_seed)? {
        Some((zxid, tree)) => (zxid, tree),
        None => (Zxid::ZERO, DataTree::new(hash_seed)),
    };
    let mut replayed = 0;
    let last = storage.replay_after(from, |_, payload| {
        let txn: Txn = codec::decode(payload)?;
        tree.apply(&txn, &mut |_| {});
        replayed += 1;
        Ok(())
    })?;
    info!(
        "{} znodes and {} sessions as of {last}, {replayed} transactions of it from the log",
        tree.node_count(),
        tree.session_count()
    );
    Ok((tree, replayed))
}

/// Every start of a replica alone is a reign of its own: two transactions never get the same zxid,
/// whatever was proposed and lost before.
fn begin_epoch(storage: &mut StorageParts) -> Result<(), StorageError> {
    let used = storage.log.last_zxid().epoch().max(storage.epochs.accepted());
    let epoch = Epoch(used.0 + 1);
    storage.epochs.set_accepted(epoch)?;
    storage.epochs.set_current(epoch)?;
    Ok(())
}

/// Reads the key, or makes one at the first start.
fn password_key(
    disks: &Disks,
    ensemble_id: EnsembleId,
    surroundings: &Surroundings,
) -> Result<PasswordKey, StartError> {
    if let Some(key) = read_password_key(disks, ensemble_id)? {
        return Ok(key);
    }
    let key = PasswordKey(surroundings.random_bytes()?);
    write_password_key(disks, ensemble_id, &key)?;
    Ok(key)
}

/// Reads what session passwords are made with; `None` when it was never written.
pub(crate) fn read_password_key(
    disks: &Disks,
    ensemble_id: EnsembleId,
) -> Result<Option<PasswordKey>, StartError> {
    let kind = FileKind::Identity;
    let found = small_file::read(&*disks.data, PASSWORD_KEY_NAME, kind, Some(ensemble_id))
        .map_err(|error| StartError::Storage(EpochError::File(error).into()))?;
    let Some((_, payload)) = found else { return Ok(None) };
    let key = payload.as_slice().try_into().map_err(|_| {
        let path = disks.data.path_of(PASSWORD_KEY_NAME);
        let reason = format!("{} has not 32 bytes: restore it", path.display());
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })?;
    Ok(Some(PasswordKey(key)))
}

/// Writes what session passwords are made with; durable when it returns.
pub(crate) fn write_password_key(
    disks: &Disks,
    ensemble_id: EnsembleId,
    key: &PasswordKey,
) -> Result<(), StartError> {
    let kind = FileKind::Identity;
    let header = FileHeader { kind, flags: 0, ensemble_id, generation: 0, zxid: Zxid::ZERO };
    small_file::replace(&*disks.data, PASSWORD_KEY_NAME, &header, &key.0)
        .map_err(StorageError::Disk)?;
    Ok(())
}
