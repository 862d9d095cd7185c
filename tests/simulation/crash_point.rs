//! A crash in the middle of what a process does.

/// When it comes: after so many more effects, if at all.
#[derive(Debug, Default)]
pub struct CrashPoint(Option<u64>);

impl CrashPoint {
    /// Between two of the effects to come.
    pub fn after(effects: u64) -> CrashPoint {
        CrashPoint(Some(effects))
    }

    /// Whether it comes before the next effect.
    pub fn is_reached(&mut self) -> bool {
        match &mut self.0 {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}
