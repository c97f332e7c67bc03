//! Huge pages for what the CPU plugin allocates. It takes the memory of a step from `malloc` and
//! gives it back, hundreds of megabytes each time. In pages of 4 KiB the kernel then clears and
//! maps as many pages for every step. In pages of 2 MiB that takes less than half as long, and
//! products translate fewer addresses.

/// Where glibc reads its tunables.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const VARIABLE: &str = "GLIBC_TUNABLES";

/// What makes glibc ask for huge pages wherever they are allowed but not the default (2.35 and
/// later; see "Tunables" in its manual).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLE: &str = "glibc.malloc.hugetlb=1";

/// Runs this program anew with huge pages, with the same arguments and as the same process. Returns
/// where it does already or the C library is another one, and where that fails: it would be the
/// same run, but slower.
///
/// glibc reads its tunables before `main`, so a program cannot set them for itself. Call it before
/// the program does anything.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn run_with_huge_pages() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    let set = std::env::var(VARIABLE).unwrap_or_default();
    let Some(tunables) = with_huge_pages(&set) else {
        return;
    };
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(&program);
    again.arg0(arguments.next().unwrap_or_else(|| program.into()));
    again.args(arguments).env(VARIABLE, tunables);
    // It only comes back if it fails.
    let _ = again.exec();
}

/// The tunables that are set, and huge pages. None where those are chosen already, or refused.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn with_huge_pages(set: &str) -> Option<String> {
    let (name, _) = TUNABLE.split_once('=')?;
    if set.contains(name) {
        return None;
    }
    Some(format!("{set}:{TUNABLE}").trim_start_matches(':').into())
}

/// Other C libraries choose the pages themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn run_with_huge_pages() {}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::with_huge_pages;

    #[test]
    fn tunables_that_are_set_stay_as_they_are() {
        let huge = with_huge_pages("").unwrap();
        assert_eq!(huge, "glibc.malloc.hugetlb=1");
        let both = with_huge_pages("glibc.malloc.check=3").unwrap();
        assert_eq!(both, "glibc.malloc.check=3:glibc.malloc.hugetlb=1");
        // So the program is run anew once only.
        assert_eq!(with_huge_pages(&both), None);
        assert_eq!(with_huge_pages("glibc.malloc.hugetlb=0"), None);
    }
}
