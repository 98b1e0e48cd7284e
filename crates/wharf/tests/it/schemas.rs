//! The tables in docs/ of the members of `--format json`: they have every member that the program
//! prints, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use crate::ledgers::{asked, open_server};
use crate::load::load;
use crate::running::{Server, drivers};

/// A page of docs/program. A package of this crate has none; the workspace tests them.
fn page(name: &str) -> Option<String> {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if crate_root.join("Cargo.toml.orig").exists() {
        println!("skipped: this is a package, which has no docs/program/{name}");
        return None;
    }
    let path = crate_root.join("../../docs/program").join(name);
    Some(fs::read_to_string(path).expect("the workspace has the page"))
}

/// The members in the table below a heading.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    let section = page.split("\n#").find(|it| {
        let first = it.lines().next().unwrap_or_default();
        first.trim_matches(['#', ' ']) == heading
    });
    let section = section.unwrap_or_else(|| panic!("no section {heading}"));
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let first_cells = rows.map(|row| row[2..].split('|').next().expect("a cell"));
    let names = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// The members of an object; members of an object within it have a dot.
fn members(told: &Value) -> BTreeSet<String> {
    let told = told.as_object().expect("an object").iter();
    let each = told.flat_map(|(name, value)| match value {
        Value::Object(_) if name == "refused" => {
            let within = members(value).into_iter();
            within.map(|inner| format!("{name}.{inner}")).collect()
        }
        _ => vec![name.clone()],
    });
    each.collect()
}

#[test]
fn every_member_that_a_server_prints_is_in_its_table() {
    let Some(servers) = page("servers.md") else {
        return;
    };
    for service in ["hold", "echo"] {
        let place = [service, "127.0.0.1:0", "--admin", "127.0.0.1:0", "-v"];
        let mut server = Server::start(&place);
        let admin = server.admin();
        let standing = asked(&admin, b"");
        drop(server.connect());
        let mut next = || {
            let mut line = String::new();
            server.lines.read_line(&mut line).expect("a line");
            serde_json::from_str::<Value>(&line).expect("an object")
        };
        let (accepted, left) = (next(), next());
        let listening = server.listening.clone();
        let account = server.stop();
        for (told, event, heading) in [
            (&listening, "listening", "`listening`"),
            (&accepted, "accepted", "`accepted`"),
            (&left, "left", "`left`"),
            (&standing, "standing", "`account` and `standing`"),
            (&account, "account", "`account` and `standing`"),
        ] {
            assert_eq!(told["event"], event, "{told}");
            assert_eq!(members(told), documented(&servers, heading), "{told}");
        }
    }
}

#[test]
fn every_member_that_a_load_prints_is_in_its_table() {
    let Some(page) = page("load.md") else {
        return;
    };
    let (server, address, admin) = open_server("echo", &drivers()[0]);
    let options = ["--admin", &admin, "--for", "100ms", "--interval", "20ms"];
    let (told, _) = load(&[&["echo", &address], &options[..]].concat());
    let table = documented(&page, "What `wharf load` prints");
    // It has those of messages, although there may have been no time for one.
    assert_eq!(members(&told), table, "{told}");
    server.stop();
}
