//! Where a redirect leads (RFC 3986 §5.2).

use http::Uri;

/// What `location` means in an answer from `base`; None if it is no URL.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if has_scheme(location) {
        return location.parse().ok();
    }
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (location, None),
    };
    let (path, query) = match path {
        "" => (base.path().to_owned(), query.or_else(|| base.query())),
        path if path.starts_with('/') => (tidy(path), query),
        path => {
            let (folder, _) = base.path().rsplit_once('/').unwrap_or_default();
            (tidy(&format!("{folder}/{path}")), query)
        }
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

/// `scheme:` as RFC 3986 §3.1 writes it.
fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_char)
    })
}

/// A path from the root without `.` and `..` (RFC 3986 §5.2.4).
fn tidy(path: &str) -> String {
    let mut kept = Vec::new();
    let mut folder = false;
    for segment in path.split('/').skip(1) {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    if folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_where_it_was_said() {
        let base: Uri = "http://host:81/a/b/c?q=1".parse().unwrap();
        for (location, expected) in [
            ("https://other/x", Some("https://other/x")),
            ("HTTP://other/x", Some("http://other/x")),
            ("//other/x", Some("http://other/x")),
            ("/x?y=1#z", Some("http://host:81/x?y=1")),
            ("x", Some("http://host:81/a/b/x")),
            ("./x/", Some("http://host:81/a/b/x/")),
            ("../x", Some("http://host:81/a/x")),
            ("../../../../x", Some("http://host:81/x")),
            ("..", Some("http://host:81/a/")),
            ("?y", Some("http://host:81/a/b/c?y")),
            ("", Some("http://host:81/a/b/c?q=1")),
            ("#z", Some("http://host:81/a/b/c?q=1")),
            ("file:///etc/passwd", None),
            ("a b", None),
        ] {
            let resolved = resolve(&base, location).map(|uri| uri.to_string());
            // Other schemes may parse; the client takes none of them.
            let resolved = resolved.filter(|uri| uri.starts_with("http"));
            assert_eq!(resolved.as_deref(), expected, "{location}");
        }
    }
}
