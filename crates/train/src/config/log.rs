//! Section `[log]`: when figures are written.

use serde::{Deserialize, Serialize};

use super::{section::section, value::BadValue};

section! {
    /// Section `[log]`: when figures are written.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct LogConfig {
        /// Steps between two lines of figures, which are means over these steps.
        pub every_steps: u64,
        /// Also write TensorBoard's event files.
        pub tensorboard: bool,
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { every_steps: 10, tensorboard: true }
    }
}

impl LogConfig {
    /// Refuses a log that never speaks.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self) -> Result<(), BadValue> {
        BadValue::unless(self.every_steps > 0, "log.every_steps", 0, "1 or more")
    }
}
