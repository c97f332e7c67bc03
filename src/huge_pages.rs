//! Huge pages for what the CPU plugin allocates. It takes the memory of a step from `malloc` and
//! gives it back, hundreds of megabytes each time. In pages of 4 KiB the kernel then clears and
//! maps as many pages for every step. In pages of 2 MiB that takes less than half as long, and
//! products translate fewer addresses.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use glibc::run_with_huge_pages;

/// Other C libraries choose the pages themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn run_with_huge_pages() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ops::Range;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::{env, fs, hint};

    /// Where glibc reads its tunables.
    const VARIABLE: &str = "GLIBC_TUNABLES";

    /// What makes glibc ask for huge pages wherever they are allowed but not the default (2.35 and
    /// later; see "Tunables" in its manual).
    const TUNABLE: &str = "glibc.malloc.hugetlb=1";

    /// How often the program was run anew.
    const RUNS: &str = "ANKH_HUGE_PAGES_RUNS";

    /// How often at most. One in two or three runs succeeds.
    const MOST: u32 = 20;

    /// Where the kernel says whether huge pages have to be asked for.
    const MODE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

    /// Runs this program anew with huge pages, with the same arguments and as the same process.
    /// Returns where it has them already, where they are the default, refused or chosen by the
    /// tunables that are set, and where that fails: it would be the same run, but slower.
    ///
    /// glibc reads its tunables before `main`, so a program cannot set them for itself. glibc 2.36
    /// also compares the kernel's mode with text that it does not end: whether it asks for huge
    /// pages then depends on what lies behind on the stack. So the program is run anew until it
    /// does. Call this before the program does anything.
    pub fn run_with_huge_pages() {
        let runs = env::var(RUNS).ok();
        let runs = runs.and_then(|runs| runs.parse().ok()).unwrap_or(0);
        let set = env::var(VARIABLE).unwrap_or_default();
        let Some(tunables) = with_huge_pages(&set, runs) else {
            return;
        };
        let mode = fs::read_to_string(MODE).unwrap_or_default();
        if runs == MOST || !mode.contains("[madvise]") || asks_for_huge_pages() {
            return;
        }
        let Ok(program) = env::current_exe() else {
            return;
        };
        let mut arguments = env::args_os();
        let mut again = Command::new(&program);
        again.arg0(arguments.next().unwrap_or_else(|| program.into()));
        again.args(arguments).env(VARIABLE, tunables);
        again.env(RUNS, (runs + 1).to_string());
        // It only comes back if it fails.
        let _ = again.exec();
    }

    /// The tunables that are set, with huge pages. None where those were chosen or refused before
    /// the first run.
    fn with_huge_pages(set: &str, runs: u32) -> Option<String> {
        let (name, _) = TUNABLE.split_once('=')?;
        match (set.contains(name), runs) {
            (true, 0) => None,
            (true, _) => Some(set.into()),
            (false, _) => Some(format!("{set}:{TUNABLE}").trim_start_matches(':').into()),
        }
    }

    /// Whether `malloc` asks for huge pages for memory that it maps.
    fn asks_for_huge_pages() -> bool {
        // More than it ever takes from memory that it has.
        let memory: Vec<u8> = Vec::with_capacity(64 << 20);
        let address = hint::black_box(&memory).as_ptr().addr();
        let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        flags_at(address, &maps).is_some_and(|flags| flags.contains(&"hg"))
    }

    /// The flags of the mapping of an address, of those that `/proc/PID/smaps` lists.
    fn flags_at(address: usize, maps: &str) -> Option<Vec<&str>> {
        let mut lines = maps.lines();
        let has_address = |line: &str| range(line).is_some_and(|range| range.contains(&address));
        lines.find(|line| has_address(line))?;
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"))?;
        Some(flags.split_whitespace().collect())
    }

    /// The addresses of a mapping, on the line that begins with them.
    fn range(line: &str) -> Option<Range<usize>> {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(address(start)?..address(end)?)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn tunables_that_are_set_stay_as_they_are() {
            let huge = with_huge_pages("", 0).unwrap();
            assert_eq!(huge, "glibc.malloc.hugetlb=1");
            let both = with_huge_pages("glibc.malloc.check=3", 0).unwrap();
            assert_eq!(both, "glibc.malloc.check=3:glibc.malloc.hugetlb=1");
            assert_eq!(with_huge_pages(&both, 0), None);
            assert_eq!(with_huge_pages("glibc.malloc.hugetlb=0", 0), None);
            // A run that was to have them and does not is run once more.
            assert_eq!(with_huge_pages(&both, 1), Some(both));
        }

        #[test]
        fn the_flags_of_a_mapping_are_found_by_an_address_in_it() {
            let maps = "7f00-7f10 rw-p 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd wr mr \n\
                        7f10-7f20 rw-p 00000000 00:00 0 [heap]\nVmFlags: rd wr hg \n";
            assert_eq!(flags_at(0x7f0f, maps).unwrap(), ["rd", "wr", "mr"]);
            assert_eq!(flags_at(0x7f10, maps).unwrap(), ["rd", "wr", "hg"]);
            assert_eq!(flags_at(0x7f20, maps), None);
        }
    }
}
