//! Checks a congestion control before there are connections.
//!
//! Otherwise each connect of a load would fail with the same error.

use wharf_port::{DriverChoice, ErrorKind, Key, ListenOptions, Port};

use crate::sys::limits;

/// Tries it on a listener without clients. If the system refuses it, returns why and what to do.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let port = Port::builder().driver(DriverChoice::Auto).single_waiter();
    let port = port.build().map_err(|error| error.to_string())?;
    let at = ListenOptions::new(([127, 0, 0, 1], 0)).congestion_control(name);
    let Err(error) = port.listen(at, Key(90)) else {
        return Ok(());
    };
    let available = limits::read().congestion_control.map(|it| it.available);
    let available = available.unwrap_or_default().join(", ");
    Err(match error.kind() {
        ErrorKind::InvalidInput => {
            format!("there is no congestion control \"{name}\" here: name one of {available}")
        }
        ErrorKind::PermissionDenied => format!(
            "congestion control {name} is for root only: add it to \
             net.ipv4.tcp_allowed_congestion_control"
        ),
        ErrorKind::Unsupported => {
            "this system chooses its congestion control itself: leave the option out".to_owned()
        }
        _ => error.to_string(),
    })
}
