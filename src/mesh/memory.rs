//! Checks that a program fits the memory of the devices.

use ankh_pjrt::{Executable, ProgramMemory};

use super::{DeviceError, DeviceMesh};

impl DeviceMesh {
    /// Fails where a program needs more memory than the devices of this process have.
    pub(super) fn check_memory(
        &self,
        program: &str,
        executable: &Executable,
    ) -> Result<(), DeviceError> {
        let Some((available, devices)) = self.available_memory() else {
            return Ok(());
        };
        let needed = needed(&executable.program().memory_stats()?);
        if needed * devices as u64 <= available {
            return Ok(());
        }
        Err(DeviceError::DoesNotFit {
            program: program.into(),
            needed,
            devices,
            available,
        })
    }

    /// Bytes that programs may use, where that is known, and the devices that share them: a
    /// device's own limit, or for the virtual devices of a CPU what the machine has left.
    fn available_memory(&self) -> Option<(u64, usize)> {
        let limits = self
            .local
            .iter()
            .map(|l| l.device.memory_stats().ok().and_then(|m| m.bytes_limit));
        if let Some(limit) = limits.flatten().min() {
            return Some((u64::try_from(limit).ok()?, 1));
        }
        let cpu = self.platform == "cpu";
        Some((cpu.then(host_memory).flatten()?, self.local.len()))
    }
}

/// The memory that a program holds at once, besides its code. Donated arguments are counted once.
fn needed(memory: &ProgramMemory) -> u64 {
    let sum = memory.arguments + memory.outputs - memory.aliased + memory.temporary;
    u64::try_from(sum.max(memory.peak)).unwrap_or(0)
}

/// `MemAvailable` of Linux's /proc/meminfo, in bytes.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
