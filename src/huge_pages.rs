//! Huge pages for what the CPU plugin allocates. It takes the memory of a step from `malloc` and
//! gives it back, hundreds of megabytes each time. In pages of 4 KiB the kernel then clears and
//! maps as many pages for every step; in pages of 2 MiB that takes half as long, and products
//! translate fewer addresses.

/// What makes glibc ask for huge pages wherever they are allowed but not the default (2.35 and
/// later; see "Tunables" in its manual).
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

    const VARIABLE: &str = "GLIBC_TUNABLES";
    let set = std::env::var(VARIABLE).unwrap_or_default();
    if set.contains("glibc.malloc.hugetlb") {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(&program);
    again.arg0(arguments.next().unwrap_or_else(|| program.into()));
    let tunables = match set.is_empty() {
        true => TUNABLE.to_string(),
        false => format!("{set}:{TUNABLE}"),
    };
    again.args(arguments).env(VARIABLE, tunables);
    // It only comes back if it fails.
    let _ = again.exec();
}

/// Other C libraries choose the pages themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn run_with_huge_pages() {}
