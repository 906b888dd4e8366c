//! Portals as people write them: `host`, `host:port`, `[address]:port`.

/// The port of iSCSI where none is given (RFC 7143 section 15).
// req: 7143-15-2
pub const PORT: u16 = 3260;

/// The other registered port, used only where it is given (RFC 7143 section 15).
pub const SYSTEM_PORT: u16 = 860;

/// Splits a portal into host and port; [`PORT`] when it names none. `None` when it is not a portal.
///
/// A bare IPv6 address is a host; with a port, or in brackets, as in a URL.
///
/// ```
/// assert_eq!(iscsi_tcp::split_portal("storage.example"), Some(("storage.example", 3260)));
/// assert_eq!(iscsi_tcp::split_portal("[2001:db8::1]:860"), Some(("2001:db8::1", 860)));
/// ```
// req: 7143-15-1, 7143-15-2
#[must_use]
pub fn split_portal(portal: &str) -> Option<(&str, u16)> {
    let (host, port) = match portal.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return None,
            }
        }
        None => match portal.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (portal, None),
            Some((host, port)) => (host, Some(port)),
            None => (portal, None),
        },
    };
    let port = match port {
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().filter(|p| *p != 0)?,
        Some(_) => return None,
        None => PORT,
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: 7143-15-1, 7143-15-2
    #[test]
    fn port_860_only_when_given() {
        assert_eq!(split_portal("host"), Some(("host", 3260)));
        assert_eq!(split_portal("host:860"), Some(("host", SYSTEM_PORT)));
        assert_eq!(split_portal("192.0.2.1:3261"), Some(("192.0.2.1", 3261)));
        assert_eq!(split_portal("2001:db8::1"), Some(("2001:db8::1", 3260)));
        assert_eq!(split_portal("[2001:db8::1]"), Some(("2001:db8::1", 3260)));
        assert_eq!(split_portal("[2001:db8::1]:860"), Some(("2001:db8::1", 860)));
    }

    #[test]
    fn what_is_no_portal() {
        for bad in
            ["", ":3260", "host:", "host:0", "host:65536", "host:+5", "host:x", "[::1", "[::1]x", "[]:1"]
        {
            assert_eq!(split_portal(bad), None, "{bad}");
        }
    }
}
