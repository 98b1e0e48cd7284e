//! Starting the program, talking to it, and stopping it.

use std::process::{Command, ExitStatus, Output};

use crate::codes::{self, Code};

/// The program under test, without arguments.
pub(crate) fn program() -> Command {
    let words = std::env::var("WHARF_TEST_PROGRAM");
    let words = words.unwrap_or_else(|_| env!("CARGO_BIN_EXE_wharf").into());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program to start"));
    command.args(words);
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut program = program();
    program.args(arguments);
    let output = program.output().expect("the program starts");
    if is_native() {
        output
    } else {
        without_words_of_wine(output)
    }
}

/// What the program has said and how it ended, where a thread of it lost Wine's server while the
/// program left: that thread complains and ends the process with a code of its own. The program's
/// is lost then as it is when the server was first.
#[cfg(unix)]
fn without_words_of_wine(output: Output) -> Output {
    use std::os::unix::process::ExitStatusExt;

    const WORDS: &[u8] = b"wine client error:";
    let lines = output.stderr.split_inclusive(|byte| *byte == b'\n');
    let stderr: Vec<u8> = lines
        .filter(|line| !line.starts_with(WORDS))
        .collect::<Vec<_>>()
        .concat();
    if stderr.len() == output.stderr.len() {
        return output;
    }
    let killed = ExitStatus::from_raw(9);
    let is_lost = output.status.code() == Some(1);
    let status = if is_lost { killed } else { output.status };
    Output {
        status,
        stderr,
        ..output
    }
}

/// Nothing runs under Wine from here.
#[cfg(not(unix))]
fn without_words_of_wine(output: Output) -> Output {
    output
}

/// The words of a command line that has no quotes.
#[cfg(unix)]
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The exit code, as far as it is known.
pub(crate) fn code_of(status: ExitStatus) -> Code {
    codes::code_of(status, is_native())
}

/// Whether the program is the one that cargo built for this system, and not a foreign build.
pub(crate) fn is_native() -> bool {
    std::env::var_os("WHARF_TEST_PROGRAM").is_none()
}

/// The same, for tests that have nothing to do elsewhere: it says so.
#[cfg(unix)]
pub(crate) fn needs_native() -> bool {
    if !is_native() {
        println!("skipped: this is a matter of the system that the tests run on");
    }
    is_native()
}

#[cfg(unix)]
pub(crate) use unix::{Server, drivers, free_ports, reset};

#[cfg(unix)]
mod unix {
    //! Servers, which run until a signal stops them.

    use std::io::{BufRead, BufReader};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::Value;

    use super::{code_of, program, words};

    /// A running server and its first line.
    pub(crate) struct Server {
        pub(crate) child: Child,
        pub(crate) lines: BufReader<ChildStdout>,
        pub(crate) listening: Value,
    }

    impl Server {
        pub(crate) fn start(arguments: &[&str]) -> Self {
            let mut command = program();
            command.args(arguments);
            Server::start_command(command)
        }

        /// Starts one at a port that the system chooses; answers its address too, to be told to a
        /// load.
        pub(crate) fn somewhere(service: &str, options: &str) -> (Self, String) {
            let place = [service, "127.0.0.1:0"];
            let server = Server::start(&[&place[..], &words(options)].concat());
            let address = server.address().to_string();
            (server, address)
        }

        /// Starts a command that becomes a server.
        pub(crate) fn start_command(mut command: Command) -> Self {
            let mut child = command
                .args(["--format", "json"])
                .stdout(Stdio::piped())
                .stdin(Stdio::null())
                .spawn()
                .expect("the program starts");
            let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
            let listening = next_line(&mut lines);
            assert_eq!(listening["event"], "listening", "{listening}");
            Server {
                child,
                lines,
                listening,
            }
        }

        pub(crate) fn address(&self) -> SocketAddr {
            address_of(&self.listening)
        }

        /// The address of the next line, for a server with several.
        pub(crate) fn next_address(&mut self) -> SocketAddr {
            address_of(&next_line(&mut self.lines))
        }

        /// The address of its door, where it has one.
        pub(crate) fn admin(&self) -> String {
            let admin = self.listening["admin"].as_str();
            admin.expect("a text").to_owned()
        }

        pub(crate) fn connect(&self) -> TcpStream {
            connect_to(self.address())
        }

        pub(crate) fn connect_so_many(&self, count: usize) -> Vec<TcpStream> {
            (0..count).map(|_| self.connect()).collect()
        }

        pub(crate) fn signal(&self, signal: Signal) {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).expect("it runs until told to stop");
        }

        /// Ends it as Ctrl-C does; answers the account, which balances.
        pub(crate) fn stop(mut self) -> Value {
            self.signal(Signal::INT);
            self.account()
        }

        /// The account of a server that was told to stop, and ends in order.
        pub(crate) fn account(&mut self) -> Value {
            let mut last = Value::Null;
            loop {
                let line = next_line(&mut self.lines);
                if line.is_null() {
                    break;
                }
                last = line;
            }
            assert_eq!(code_of(self.wait()), Some(0));
            assert_eq!(last["event"], "account", "{last}");
            let read = |name: &str| last[name].as_u64().expect(name);
            let left = read("left_by_fin") + read("left_by_reset") + read("left_by_error");
            assert_eq!(read("accepted"), left + read("closed_by_us"), "{last}");
            last
        }

        /// The next line that it prints.
        pub(crate) fn next_line(&mut self) -> Value {
            next_line(&mut self.lines)
        }

        pub(crate) fn wait(&mut self) -> ExitStatus {
            self.child.wait().expect("it ends")
        }

        /// Waits until it has told of an event so often, in the lines that `-v` prints.
        pub(crate) fn wait_for(&mut self, event: &str, count: usize) {
            let mut seen = 0;
            while seen < count {
                let line = next_line(&mut self.lines);
                assert!(!line.is_null(), "the server ended early");
                seen += usize::from(line["event"] == event);
            }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // After an orderly stop there is nothing left to end.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn address_of(listening: &Value) -> SocketAddr {
        let address = listening["address"].as_str().expect("a text");
        address.parse().expect("an internet address")
    }

    fn connect_to(address: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(address).expect("the server listens");
        let patience = Some(Duration::from_secs(60));
        client.set_read_timeout(patience).expect("an open socket");
        client
    }

    fn next_line(lines: &mut impl BufRead) -> Value {
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(0) => Value::Null,
            Ok(_) => serde_json::from_str(&line).expect("an object a line"),
            Err(error) => panic!("the pipe: {error}"),
        }
    }

    /// The first of `count` free ports in a row, from `first` on and below `first` + 2,000.
    ///
    /// Each test names a `first` of its own, below the ports that systems hand out for port 0.
    /// Two tests once looked for free ports in the same place, and the one that connected until
    /// its server answered was counted by the server of the other. Two runs of the tests at the same
    /// time would do the same, and so each begins somewhere else.
    pub(crate) fn free_ports(first: u16, count: u16) -> u16 {
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let mut places: Vec<u16> = (first..first + 2_000).step_by(17).collect();
        let begin = std::process::id() as usize % places.len();
        places.rotate_left(begin);
        let mut places = places.into_iter();
        let found = places.find(|&place| (place..place + count).all(free));
        found.unwrap_or_else(|| panic!("no {count} ports in a row are free"))
    }

    /// The drivers that the program has.
    pub(crate) fn drivers() -> Vec<String> {
        let drivers: Vec<String> = match std::env::var("WHARF_TEST_DRIVERS") {
            Ok(names) => names.split(',').map(str::to_owned).collect(),
            Err(_) => {
                let present = wharf_port::drivers_present();
                present.iter().map(ToString::to_string).collect()
            }
        };
        assert!(!drivers.is_empty());
        drivers
    }

    /// Ends a connection with RST.
    pub(crate) fn reset(client: TcpStream) {
        let client = socket2::Socket::from(client);
        client
            .set_linger(Some(Duration::ZERO))
            .expect("an open socket");
    }
}
