//! Two processes that write one data set would undo each other's work.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::Access;

/// A lock that the system drops with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; `Err` if somebody has it. `None` on a file system that knows no locks, where
    /// users must look after it themselves.
    pub fn take(path: &Path, access: Access) -> Result<Option<Lock>, ()> {
        let Ok(file) = File::options().create(true).append(true).open(path) else {
            return Ok(None);
        };
        let locked = match access {
            Access::Alone => file.try_lock(),
            Access::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(()),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_and_nobody_shares_with_one_who_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let take = |access| Lock::take(&dir.path().join("lock"), access);
        let first = take(Access::Shared).unwrap();
        assert!(take(Access::Shared).is_ok() && take(Access::Alone).is_err());
        drop(first);
        let alone = take(Access::Alone).unwrap();
        assert!(take(Access::Shared).is_err());
        drop(alone);
        assert!(take(Access::Shared).is_ok());
    }
}
