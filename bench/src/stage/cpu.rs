//! CPU of a broker, read from outside.

use super::StageError;
use crate::machine::process;

/// CPU time of a process, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Of its loops.
    pub loops: f64,
    /// Of all its threads.
    pub all: f64,
}

impl Cpu {
    /// Of that process.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(pid: u32) -> Result<Self, StageError> {
        let cpu = process::cpu(pid)?;
        let number = |nanos: u64| nanos as f64;
        let of_loop = |name: &str| {
            name.strip_prefix("holdfast-")
                .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        let loops = cpu.threads.iter().filter(|(name, _)| of_loop(name));
        Ok(Self {
            loops: loops.map(|(_, nanos)| number(*nanos)).sum(),
            // Not the total, which is exact to 20 ms only: the threads that matter do not end.
            all: cpu.threads.values().map(|nanos| number(*nanos)).sum(),
        })
    }

    /// What was used since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            loops: self.loops - earlier.loops,
            all: self.all - earlier.all,
        }
    }
}
