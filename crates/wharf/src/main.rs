//! The `wharf` program: the services are not in place yet.

#![forbid(unsafe_code)]

fn main() {
    eprintln!("wharf: no service is in place yet");
    std::process::exit(2);
}
