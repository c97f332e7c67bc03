//! Where results of benchmarks of a run's checkpoints are: `benchmarks/NAME/step_<8 digits>.json`.

use std::path::{Path, PathBuf};

/// The directory of all benchmarks of a run. Each has a directory there, by its name.
pub fn benchmarks_of(run: &Path) -> PathBuf {
    run.join("benchmarks")
}

/// The name of the file of a result.
pub fn benchmark_result(step: u64) -> String {
    format!("step_{step:08}.json")
}

/// The step of a result, by the name of its file; nothing if it is none.
pub fn step_of_benchmark_result(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.strip_suffix(".json")?;
    let step = step.parse().ok()?;
    (name == benchmark_result(step)).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_known_by_its_name() {
        for step in [0, 7, 12_345_678, 123_456_789] {
            assert_eq!(
                step_of_benchmark_result(&benchmark_result(step)),
                Some(step)
            );
        }
        for name in [
            "step_7.json",
            "step_+0000007.json",
            ".step_00000007.json",
            "step_00000007",
        ] {
            assert_eq!(step_of_benchmark_result(name), None, "{name}");
        }
    }
}
