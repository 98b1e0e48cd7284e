//! The `kernels` leg: the kernels that Debian's users have, booted in an emulator.
//!
//! Continuous integration has one kernel, and code that runs only on that one is not proved
//! elsewhere: a self-test once failed on every kernel before 6.17, and no test noticed. So each
//! kernel boots here with the suite and the program in its initial file system, runs a selected
//! part of them, and prints to its console how each step ended. The leg requires, word by word, the
//! features that the README lists for this kernel.
//!
//! Without KVM, which continuous integration often lacks: a boot takes seconds, the rest 10 to 20
//! times as long as usual. Everything made here is in `target/kernels`.

mod cases;
mod console;
mod differences;
mod fetch;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::debian::{self, Needed};
use console::Console;

const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";

const NEEDED: [Needed; 4] = [
    (EMULATOR, "qemu-system-x86"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/share/doc/busybox-static", "busybox-static"),
    ("/usr/bin/strip", "binutils"),
];

/// How long a guest may take before it counts as hung; on two idle processors it takes a few
/// minutes.
const GUEST_LIMIT: Duration = Duration::from_mins(15);

/// A kernel of a release of Debian.
#[derive(Debug)]
struct Kernel {
    /// The name of the release on its mirrors.
    suite: &'static str,
    /// The version of its kernel.
    version: (u32, u32),
}

static KERNELS: [Kernel; 2] = [
    Kernel {
        suite: "bookworm",
        version: (6, 1),
    },
    Kernel {
        suite: "trixie",
        version: (6, 12),
    },
];

impl Kernel {
    fn name(&self) -> String {
        format!("Linux {}.{}", self.version.0, self.version.1)
    }
}

pub(crate) fn kernels() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "this leg boots other kernels only on Linux on x86-64"
    );
    debian::install(&NEEDED)?;
    let mut images = Vec::new();
    for kernel in &KERNELS {
        let image = fetch::image(kernel.suite);
        images.push(image.with_context(|| format!("the kernel of Debian {}", kernel.suite))?);
    }
    let system = first_file_system()?;
    let start = Instant::now();
    let mut guests = Vec::new();
    for (kernel, image) in KERNELS.iter().zip(&images) {
        guests.push(Guest::boot(kernel, image, &system)?);
    }
    let mut failed = Vec::new();
    for guest in guests {
        let name = guest.kernel.name();
        println!("-- {name}");
        match guest.finish(start + GUEST_LIMIT) {
            Ok(()) => println!("-- {name}: as required"),
            Err(error) => {
                println!("-- {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn directory() -> PathBuf {
    debian::directory("kernels")
}

/// Builds what the guests run and packs it with busybox, which is their whole system.
fn first_file_system() -> Result<PathBuf> {
    let suite = messages_of(&[
        "test",
        "--package",
        "wharf-port",
        "--lib",
        "--test",
        "it",
        "--no-run",
    ])?;
    let program = messages_of(&["build", "--package", "wharf"])?;
    let root = directory().join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for path in ["bin", "lib64", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(path))?;
    }
    for (messages, target, name) in [
        (&suite, "it", "it"),
        (&suite, "wharf_port", "lib"),
        (&program, "wharf", "wharf"),
    ] {
        let built = command::executable(messages, target);
        let built = built.with_context(|| format!("cargo built no executable {target}"))?;
        // Without debug information a tenth of it is left.
        let mut strip = Command::new("strip");
        strip.args(["-o".as_ref(), root.join("bin").join(name).as_os_str()]);
        command::run(strip.arg(&built))?;
        copy_libraries(&built, &root)?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
    let init = root.join("init");
    fs::copy(command::root().join("xtask/kernels/init.sh"), &init)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    // Everything in a guest is slower. Deadlines that end a hang are longer by this factor.
    let settings = format!(
        "export WHARF_TEST_SLOW=10\nCHOICE={}\nCASES={}\n",
        cases::CHOICE.join(","),
        cases::CASES.join(",")
    );
    fs::write(root.join("steps.env"), settings)?;
    let packed = directory().join("first.cpio.gz");
    let pack = "find . | cpio --create --format newc --quiet | gzip -1 > ../first.cpio.gz";
    command::run(Command::new("sh").args(["-c", pack]).current_dir(&root))?;
    Ok(packed)
}

fn messages_of(arguments: &[&str]) -> Result<String> {
    let json = "--message-format=json-render-diagnostics";
    command::read(&mut command::cargo(&[arguments, &[json]].concat()))
}

/// Copies the libraries of a program to the paths where it looks for them.
fn copy_libraries(program: &str, root: &Path) -> Result<()> {
    let listed = command::read(Command::new("ldd").arg(program))?;
    for path in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library has a directory")?)?;
        fs::copy(path, to).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

/// An emulator that runs one kernel, and its console output.
struct Guest {
    kernel: &'static Kernel,
    emulator: Child,
    log: PathBuf,
}

impl Guest {
    fn boot(kernel: &'static Kernel, image: &Path, system: &Path) -> Result<Self> {
        let log = directory().join(format!("{}.log", kernel.suite));
        println!(
            "$ {} boots; its console is {}",
            kernel.name(),
            log.display()
        );
        let console = fs::File::create(&log)?;
        let mut emulator = Command::new(EMULATOR);
        emulator
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-m", "3000", "-smp", "2"])
            .args(["-nographic", "-no-reboot", "-net", "none"])
            .args(["-append", "console=ttyS0 quiet loglevel=1 panic=1"])
            .args(["-kernel".as_ref(), image.as_os_str()])
            .args(["-initrd".as_ref(), system.as_os_str()]);
        emulator.stdin(Stdio::null());
        emulator.stdout(console.try_clone()?).stderr(console);
        let emulator = emulator.spawn().context("cannot start the emulator")?;
        Ok(Guest {
            kernel,
            emulator,
            log,
        })
    }

    /// Waits for the guest's end, and checks its console output.
    fn finish(mut self, deadline: Instant) -> Result<()> {
        let ended = loop {
            if self.emulator.try_wait()?.is_some() {
                break true;
            }
            if Instant::now() >= deadline {
                break false;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let written = fs::read(&self.log)?;
        let console = Console::read(&String::from_utf8_lossy(&written));
        let judged = if ended {
            console.require(self.kernel.version)
        } else {
            Err(anyhow::anyhow!(
                "it was still running after {GUEST_LIMIT:?}"
            ))
        };
        if judged.is_err() {
            println!("{}", console.text());
        } else {
            println!("{}", console.summary());
        }
        judged
    }
}

impl Drop for Guest {
    /// Ends the emulator, if it still runs.
    fn drop(&mut self) {
        if let Ok(None) = self.emulator.try_wait() {
            let _ = self.emulator.kill();
            let _ = self.emulator.wait();
        }
    }
}
