//! Reads `unix:/path`, the address of a Unix socket.

use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::context::CompileContext;
use crate::config::decode::{Located, TomlString};

/// How addresses of Unix sockets are written.
pub const FORM: &str = "unix:/PATH";

/// Whether a text is meant as the address of a Unix socket.
pub fn is_socket(text: &str) -> bool {
    text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:"))
}

/// The path in the address of a Unix socket.
pub fn socket_path(text: &Located<TomlString>, context: &mut CompileContext) -> Option<PathBuf> {
    match read(text.value.as_str()) {
        Ok(path) => Some(path),
        Err((what, hint)) => {
            context.report.malformed(text, "the address of a Unix socket", what, Some(FORM), &hint);
            None
        }
    }
}

/// The path, or what is wrong with it and how to write it. Messages do not repeat the text.
fn read(text: &str) -> Result<PathBuf, (String, String)> {
    let rest = text.get(5..).unwrap_or_default();
    // As in a URL, `unix:///a` is `unix:/a`.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let wrong = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    if path.starts_with('@') || path.starts_with('\0') {
        return wrong(
            "abstract sockets have no file and no mode",
            "write the path of a socket file",
        );
    }
    if !path.starts_with('/') {
        return wrong(
            "the path of the socket is not absolute",
            "write it with its folder, as in \"unix:/run/app/app.sock\"",
        );
    }
    if path.ends_with(':') || path.contains(":/") {
        return wrong(
            "another path follows that of the socket",
            "end it after the socket; requests keep their own paths",
        );
    }
    if path.ends_with('/') {
        return wrong("this is the path of a folder", "name the socket in it");
    }
    if SocketAddr::from_pathname(Path::new(path)).is_err() {
        return Err((
            format!(
                "the path has {} bytes, and that of a socket at most {}",
                path.len(),
                longest_path()
            ),
            "use a shorter one, such as \"unix:/run/app.sock\"".to_owned(),
        ));
    }
    Ok(PathBuf::from(path))
}

/// The bytes of the longest path that the system allows for a socket.
fn longest_path() -> usize {
    let fits = |length: &usize| SocketAddr::from_pathname("a".repeat(*length)).is_ok();
    (1..=256).take_while(fits).last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_it_are_read() {
        for text in ["unix:/run/app.sock", "unix:///run/app.sock", "UNIX:/run/app.sock"] {
            assert!(is_socket(text));
            assert_eq!(read(text).unwrap(), Path::new("/run/app.sock"), "{text}");
        }
        assert!(
            !is_socket("http://unix:/run/app.sock") && !is_socket("unix") && !is_socket("ünix:")
        );
    }

    #[test]
    fn what_is_no_path_of_a_socket_is_told() {
        for (text, says) in [
            ("unix:", "not absolute"),
            ("unix:run/app.sock", "not absolute"),
            ("unix://run/app.sock", "not absolute"),
            ("unix:@app", "abstract"),
            ("unix:/run/", "folder"),
            ("unix:/run/app.sock:/api", "another path"),
            ("unix:/run/app.sock:", "another path"),
        ] {
            let (what, _) = read(text).unwrap_err();
            assert!(what.contains(says), "{text}: {what}");
        }
        let most = longest_path();
        let path = |length: usize| format!("unix:/{}", "a".repeat(length - 1));
        assert_eq!(read(&path(most)).unwrap().as_os_str().len(), most);
        let (what, _) = read(&path(most + 1)).unwrap_err();
        assert!(what.contains(&format!("{} bytes", most + 1)), "{what}");
    }
}
