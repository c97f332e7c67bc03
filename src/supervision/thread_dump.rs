//! What the threads of a process that hangs are doing, written to a file before it is killed.
//!
//! The system tells each thread's state and what it waits for in the kernel. A debugger, where one
//! is installed, tells the functions.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::run_dir::machine;

/// Dumps of this machine that are kept.
const KEPT: usize = 5;

/// How long a debugger may take: it reads the symbols of a large library.
const DEBUGGER: Duration = Duration::from_secs(30);

/// Writes what the threads of `process` are doing to a file in `directory`, and returns the file.
pub(super) fn write(process: u32, why: &str, directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let host = machine();
    let file = directory.join(format!("{}_{host}_{process}.txt", time.replace(':', "")));
    let mut text = format!("{time}, process {process} on {host}: {why}\n\n");
    text += &threads(process);
    if let Some(debugger) = debugger(process, std::env::var_os("PATH")) {
        text += &frames(debugger, DEBUGGER);
    }
    fs::write(&file, text)?;
    keep_newest(directory, &host)?;
    Ok(file)
}

/// Removes all but the newest dumps of this machine.
fn keep_newest(directory: &Path, host: &str) -> io::Result<()> {
    let entries = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".txt") && name.contains(&format!("_{host}_"))
    };
    let mut dumps: Vec<PathBuf> = entries.filter(is_ours).collect();
    // Their names begin with the time.
    dumps.sort_unstable();
    let old = dumps.len().saturating_sub(KEPT);
    dumps[..old].iter().try_for_each(fs::remove_file)
}

/// What the system tells of each thread.
fn threads(process: u32) -> String {
    let mut text = String::new();
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        // The name stands in brackets and may hold some itself.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        let (name, waits) = (read("comm"), read("wchan"));
        let _ = writeln!(
            text,
            "thread {} ({}): {}{}",
            task.file_name().display(),
            name.trim(),
            state.map_or("unknown", meaning),
            match waits.trim() {
                "" | "0" => String::new(),
                waits => format!(", in the kernel's {waits}"),
            }
        );
        for frame in read("stack").lines() {
            let _ = writeln!(text, "    {frame}");
        }
    }
    text
}

fn meaning(state: char) -> &'static str {
    match state {
        'R' => "R, running",
        'S' => "S, sleeping",
        'D' => "D, waiting for a disk or a device",
        'T' => "T, stopped by a signal",
        't' => "t, stopped by a debugger",
        'Z' => "Z, ended",
        _ => "in another state",
    }
}

/// The command of a debugger that is installed.
fn debugger(process: u32, path: Option<std::ffi::OsString>) -> Option<Command> {
    let path = path?;
    let installed = |name: &str| {
        let mut places = std::env::split_paths(&path).map(|place| place.join(name));
        places.find(|place| place.is_file())
    };
    let id = process.to_string();
    if let Some(gdb) = installed("gdb") {
        let mut command = Command::new(gdb);
        // It would ask servers for symbols.
        command.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
        command.args(["-p", &id, "-ex", "thread apply all backtrace"]);
        return Some(command);
    }
    let mut command = Command::new(installed("eu-stack")?);
    command.args(["-p", &id]);
    Some(command)
}

/// What a debugger prints within a time.
fn frames(mut debugger: Command, limit: Duration) -> String {
    let name = debugger.get_program().to_string_lossy().into_owned();
    let mut printed = || -> io::Result<String> {
        let mut output = tempfile::tempfile()?;
        let to: File = output.try_clone()?;
        let stdio = debugger.stdin(Stdio::null()).stderr(Stdio::null());
        let mut process = stdio.stdout(to).spawn()?;
        let start = Instant::now();
        let mut note = "";
        while process.try_wait()?.is_none() {
            if start.elapsed() > limit {
                process.kill()?;
                process.wait()?;
                note = "(it took too long, and was ended)\n";
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut bytes = Vec::new();
        output.rewind()?;
        output.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned() + note)
    };
    let printed = printed().unwrap_or_else(|error| format!("(it failed: {error})\n"));
    format!("\n{name}:\n{printed}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_dump_names_every_thread_and_what_it_does() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let waits = thread::Builder::new().name("idle".into());
        let waits = waits.spawn(move || wait.recv()).unwrap();
        // It may be some time until it sleeps.
        let patience = Instant::now() + Duration::from_secs(60);
        while !threads(std::process::id()).contains(" (idle): S, sleeping") {
            assert!(Instant::now() < patience, "no thread sleeps in a minute");
        }
        drop(end);
        let _ = waits.join().unwrap();
    }

    #[test]
    fn a_debugger_adds_what_it_prints_within_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = Some(directory.path().as_os_str().to_owned());
        assert!(debugger(7, path.clone()).is_none());
        let script = directory.path().join("eu-stack");
        fs::write(
            &script,
            "#!/bin/sh\necho \"frames of $2\"\nexec /bin/sleep 600\n",
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let command = debugger(7, path).unwrap();
        let text = frames(command, Duration::from_millis(500));
        assert!(text.contains("eu-stack:\nframes of 7\n"), "{text}");
        assert!(text.contains("it took too long"), "{text}");
    }

    #[test]
    fn the_newest_dumps_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let name =
            |number: usize, host: &str| directory.path().join(format!("{number}_{host}_1.txt"));
        for number in 0..8 {
            fs::write(name(number, "here"), "").unwrap();
            fs::write(name(number, "there"), "").unwrap();
        }
        keep_newest(directory.path(), "here").unwrap();
        for number in 0..8 {
            assert_eq!(name(number, "here").exists(), number >= 3);
            assert!(name(number, "there").exists());
        }
    }
}
