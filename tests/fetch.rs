//! `pretrain doctor --fetch`, for someone who has the binary alone. A stand-in for pip delivers
//! what a package index would; the real one is used by `tests/newcomer.py`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use ankh_pjrt::{Pin, Platform, Plugin};

/// A directory with the binary and a home, away from every checkout, whose plugins would be found.
struct Elsewhere {
    directory: tempfile::TempDir,
}

impl Elsewhere {
    /// `pip` is what `python3 -m pip` does there, in Python: `option(name)` is one of its options.
    fn new(pip: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = Self { directory };
        let (built, program) = (env!("CARGO_BIN_EXE_pretrain"), elsewhere.path("pretrain"));
        let linked = fs::hard_link(built, &program);
        linked
            .or_else(|_| fs::copy(built, &program).map(drop))
            .unwrap();
        let package = elsewhere.path("packages/pip");
        fs::create_dir_all(&package).unwrap();
        fs::write(package.join("__init__.py"), "").unwrap();
        let begin = "import os, sys, zipfile\n\
                     def option(name): return sys.argv[sys.argv.index(name) + 1]\n";
        fs::write(package.join("__main__.py"), format!("{begin}{pip}")).unwrap();
        elsewhere
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the plugin for the processor belongs.
    fn place(&self) -> PathBuf {
        let pin = Pin::of(Platform::Cpu).unwrap();
        let plugins = self.path("data/ankh/plugins");
        plugins.join(pin.library_sha256).join(pin.file)
    }

    /// `pretrain doctor` with these arguments, in a shell that first does `before`.
    fn doctor(&self, before: &str, arguments: &str) -> Output {
        let program = self.path("pretrain");
        let program = program.display();
        Command::new("bash")
            .args([
                "-c",
                &format!("{before}\nexec {program} doctor --config tiny {arguments}"),
            ])
            .current_dir(self.directory.path())
            .env_remove("ANKH_PJRT_PLUGIN")
            .env("XDG_DATA_HOME", self.path("data"))
            .env("PYTHONPATH", self.path("packages"))
            .output()
            .expect("there is bash")
    }

    /// Fetching fails, with one error that has these words, and leaves nothing behind.
    #[track_caller]
    fn refuses(&self, before: &str, arguments: &str, exit: i32, words: &[&str]) {
        let output = self.doctor(before, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert!(output.stdout.is_empty(), "no check is made after it");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} in {said}");
        }
        let left = walk(self.path("data"));
        assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    }
}

fn walk(directory: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(&directory).into_iter().flatten();
    let below = entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        [vec![path.clone()], walk(path)].concat()
    });
    below.collect()
}

#[test]
fn a_fetched_plugin_is_found_from_anywhere_and_fetched_once() {
    // The wheel that is pinned, as far as its library goes.
    let elsewhere = Elsewhere::new(
        "assert sys.argv[1:3] == ['--quiet', '--disable-pip-version-check'], sys.argv\n\
         assert 'download' in sys.argv and '--require-hashes' in sys.argv, sys.argv\n\
         line = open(option('--requirement')).read()\n\
         assert line.startswith('lammps-jax-pjrt-cpu==') and ' --hash=sha256:' in line, line\n\
         os.symlink(os.environ['WHEEL'], option('--dest') + '/a.whl')\n",
    );
    let plugin = Plugin::locate(Platform::Cpu).expect("`make plugin` puts it in place");
    let wheel = elsewhere.path("a.whl");
    let member = "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so";
    let pack =
        format!("import zipfile; zipfile.ZipFile({wheel:?}, 'w').write({plugin:?}, {member:?})");
    let packed = Command::new("python3")
        .args(["-c", &pack])
        .status()
        .unwrap();
    assert!(packed.success());

    let before = format!("export WHEEL={}", wheel.display());
    let none = elsewhere.doctor("", "");
    let said = String::from_utf8(none.stdout).unwrap();
    assert_eq!(none.status.code(), Some(1), "{said}");
    assert!(said.contains("pretrain doctor --fetch"), "{said}");
    assert!(said.contains(elsewhere.place().to_str().unwrap()), "{said}");

    // A disk that takes no more: what was begun is removed.
    let full = format!("{before}; ulimit -f 1000");
    elsewhere.refuses(&full, "--fetch", 1, &["no cpu plugin:", "too large"]);

    let fetched = elsewhere.doctor(&before, "--fetch");
    let said = String::from_utf8(fetched.stdout).unwrap();
    assert_eq!(fetched.status.code(), Some(0), "{said}");
    let found = format!("ok    plugin         {}", elsewhere.place().display());
    assert!(said.contains(&found), "{said}");
    // The directory has nothing else.
    let plugins = elsewhere.path("data/ankh/plugins");
    let files = walk(plugins).into_iter().filter(|path| path.is_file());
    assert_eq!(files.collect::<Vec<_>>(), [elsewhere.place()]);

    // It is there: nobody is asked again.
    let again = elsewhere.doctor("export WHEEL=/nowhere", "--fetch");
    assert_eq!(
        again.status.code(),
        Some(0),
        "{:?}",
        String::from_utf8(again.stderr)
    );
}

#[test]
fn what_keeps_a_plugin_from_being_fetched_is_one_error() {
    let offline = Elsewhere::new("sys.exit('ERROR: No matching distribution found')");
    let words = [
        "could not download lammps-jax-pjrt-cpu==",
        "No matching distribution",
        "help: ",
    ];
    offline.refuses("", "--fetch", 1, &words);
    offline.refuses(
        "",
        "--fetch --slice v4-8",
        1,
        &["no tpu plugin", "libtpu=="],
    );
    let without_python = ["cannot start python3", "install Python 3 with pip"];
    offline.refuses("export PATH=/nowhere", "--fetch", 1, &without_python);
    let unpinned = ["no plugin is pinned for cuda", "ANKH_PJRT_PLUGIN"];
    offline.refuses("", "--fetch --slice cuda-1", 2, &unpinned);
    let homeless = ["HOME is not set", "XDG_DATA_HOME"];
    offline.refuses("unset HOME XDG_DATA_HOME", "--fetch", 2, &homeless);

    let other = Elsewhere::new(
        "with zipfile.ZipFile(option('--dest') + '/a.whl', 'w') as wheel:\n  \
         wheel.writestr('lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so', 'not it')\n",
    );
    other.refuses("", "--fetch", 1, &["has sha256", "expected ad1309ac822b"]);
    let empty = Elsewhere::new("zipfile.ZipFile(option('--dest') + '/a.whl', 'w').close()");
    empty.refuses("", "--fetch", 1, &["a.whl holds no lammps_jax_pjrt_cpu/"]);
}
