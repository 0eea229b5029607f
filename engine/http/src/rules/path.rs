//! Making one path out of the many ways to write it, in place: routing, policy and the upstream must read the
//! same one. Order and outcome are Envoy's: escaped slashes, then RFC 3986 normalization, then slash merging
//! (last, to catch what percent-decoding uncovered).

use crate::{HttpError, RequestHead};

/// path_with_escaped_slashes_action: what to do with `%2F` and `%5C` in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    #[default]
    KeepUnchanged,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PathRules {
    /// normalize_path
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAction {
    Continue,
    /// Answer 307 with `location: <the head's path>`; to gRPC, which follows no redirects, INTERNAL.
    Redirect,
}

/// Applies the rules to the path of the head; the query is never touched. `*` and the empty path of CONNECT
/// have nothing to normalize.
///
/// # Errors
/// `PathFragment`: RFC 9112 section 3.2 knows no fragment in a target. `EscapedSlash` where they are rejected.
/// `PathNotNormalizable`: an escaped NUL. All are answered with 400.
pub fn apply_path_rules(head: &mut RequestHead, rules: &PathRules) -> Result<PathAction, HttpError> {
    if memchr::memchr(b'#', head.path()).is_some() {
        return Err(HttpError::PathFragment);
    }
    if head.path().first() != Some(&b'/') {
        return Ok(PathAction::Continue);
    }
    let mut action = PathAction::Continue;
    if rules.escaped_slashes != EscapedSlashes::KeepUnchanged && has_escaped_slash(head.path_without_query())
    {
        match rules.escaped_slashes {
            EscapedSlashes::Reject => return Err(HttpError::EscapedSlash),
            EscapedSlashes::UnescapeAndRedirect => action = PathAction::Redirect,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::KeepUnchanged => {}
        }
        head.edit_path(|path| (edit_before_query(path, unescape_slashes), ()));
    }
    if rules.normalize && needs_normalizing(head.path_without_query()) {
        let normalized = head.edit_path(|path| {
            let mut valid = true;
            let len = edit_before_query(path, |bytes| {
                let decoded = decode_unreserved(bytes);
                valid = decoded.is_some();
                remove_dot_segments(&mut bytes[..decoded.unwrap_or(0)])
            });
            (len, valid)
        });
        if !normalized {
            return Err(HttpError::PathNotNormalizable);
        }
    }
    if rules.merge_slashes && memchr::memmem::find(head.path_without_query(), b"//").is_some() {
        head.edit_path(|path| (edit_before_query(path, merge_slashes), ()));
    }
    Ok(action)
}

/// Applies `shorten`, which returns a new length, to the part before the query and moves the query up to it.
fn edit_before_query(path: &mut [u8], shorten: impl FnOnce(&mut [u8]) -> usize) -> usize {
    let query = memchr::memchr(b'?', path).unwrap_or(path.len());
    let kept = shorten(&mut path[..query]).min(query);
    path.copy_within(query.., kept);
    kept + path.len() - query
}

/// The octet that `%XX` at the start stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |b: u8| (b as char).to_digit(16);
    Some((digit(*high)? << 4 | digit(*low)?) as u8)
}

fn has_escaped_slash(path: &[u8]) -> bool {
    memchr::memchr_iter(b'%', path).any(|at| matches!(escaped(&path[at..]), Some(b'/' | b'\\')))
}

/// Replaces each escape for which `decode` says so by its octet; returns the new length.
fn decode_in_place(path: &mut [u8], decode: impl Fn(u8) -> bool) -> usize {
    let (mut read, mut write) = (0, 0);
    while read < path.len() {
        match escaped(&path[read..]) {
            Some(octet) if decode(octet) && !completes_escape(&path[..write], octet) => {
                path[write] = octet;
                read += 3;
            }
            _ => {
                path[write] = path[read];
                read += 1;
            }
        }
        write += 1;
    }
    write
}

/// Whether the octet would make an escape of a stray `%` before it (`%%32e`): the next hop would decode that
/// once more.
fn completes_escape(before: &[u8], octet: u8) -> bool {
    octet.is_ascii_hexdigit()
        && matches!(before, [.., b'%'] | [.., b'%', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F'])
}

fn unescape_slashes(path: &mut [u8]) -> usize {
    decode_in_place(path, |octet| matches!(octet, b'/' | b'\\'))
}

/// Whether normalization could change the path; most paths need none.
fn needs_normalizing(path: &[u8]) -> bool {
    memchr::memchr2(b'%', b'\\', path).is_some() || memchr::memmem::find(path, b"/.").is_some()
}

/// RFC 3986 section 6.2.2.2: escapes of unreserved characters "should be normalized by decoding". A backslash
/// becomes a slash, as browsers and Envoy have it. None: an escaped NUL, on which Envoy refuses the path.
fn decode_unreserved(path: &mut [u8]) -> Option<usize> {
    if memchr::memmem::find(path, b"%00").is_some() {
        return None;
    }
    let len = decode_in_place(path, |o| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'.' | b'_' | b'~'));
    path[..len].iter_mut().filter(|b| **b == b'\\').for_each(|b| *b = b'/');
    Some(len)
}

/// RFC 3986 section 5.2.4, for a path that begins in `/`; what would climb above the root stays at the root.
fn remove_dot_segments(path: &mut [u8]) -> usize {
    let (mut read, mut write) = (0, 0);
    while read < path.len() {
        // path[read] is a slash: the segment goes to the next one.
        let end = memchr::memchr(b'/', &path[read + 1..]).map_or(path.len(), |at| read + 1 + at);
        let is_last = end == path.len();
        let dots = match &path[read + 1..end] {
            b"." => 1,
            b".." => 2,
            _ => 0,
        };
        if dots == 2 {
            write = memchr::memrchr(b'/', &path[..write]).unwrap_or(0);
        }
        if dots == 0 {
            path.copy_within(read..end, write);
            write += end - read;
        } else if is_last {
            path[write] = b'/';
            write += 1;
        }
        read = end;
    }
    write
}

fn merge_slashes(path: &mut [u8]) -> usize {
    let mut write = 0;
    for read in 0..path.len() {
        if path[read] == b'/' && write > 0 && path[write - 1] == b'/' {
            continue;
        }
        path[write] = path[read];
        write += 1;
    }
    write
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(path: &str, rules: PathRules) -> Result<(PathAction, String), HttpError> {
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        let action = apply_path_rules(&mut head, &rules)?;
        Ok((action, String::from_utf8(head.path().to_vec()).unwrap()))
    }

    #[test]
    fn normalization() {
        let rules = PathRules { normalize: true, ..PathRules::default() };
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/b/../../../c", "/c"),
            // RFC 3986 section 5.2.4's own example
            ("/a/b/c/./../../g", "/a/g"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a/...", "/a/..."),
            ("/a/.b", "/a/.b"),
            ("/a..", "/a.."),
            ("/a//../b", "/a/b"),
            ("//a", "//a"),
            ("/%2e%2E/a", "/a"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a\\b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/%61%7e%2D", "/a~-"),
            ("/%2f%3f%20", "/%2f%3f%20"),
            ("/%25%32%65", "/%252e"),
            ("/%zz/%2", "/%zz/%2"),
            ("/a/../b?c/../d%2e", "/b?c/../d%2e"),
            ("/a?/..\\", "/a?/..\\"),
            ("*", "*"),
        ] {
            assert_eq!(apply(path, rules), Ok((PathAction::Continue, expected.to_string())), "{path}");
        }
        assert_eq!(apply("/a%00b", rules), Err(HttpError::PathNotNormalizable));
        assert_eq!(apply("/a?%00", rules).unwrap().1, "/a?%00");
    }

    #[test]
    fn normalization_is_idempotent_on_paths_of_few_letters() {
        let rules = PathRules { normalize: true, merge_slashes: true, ..PathRules::default() };
        let alphabet = ["/", ".", "%2e", "\\", "e", "%", "%32"];
        for n in 0..alphabet.len().pow(5) {
            let mut path = String::from("/");
            (0..5).for_each(|i| path.push_str(alphabet[n / alphabet.len().pow(i) % alphabet.len()]));
            let once = apply(&path, rules).unwrap().1;
            assert_eq!(apply(&once, rules).unwrap().1, once, "{path}");
            assert!(once.starts_with('/') && !once.contains("//") && !once.contains('\\'), "{path} {once}");
            assert!(!once.split('/').any(|s| s == ".." || s == "."), "{path} {once}");
        }
    }

    #[test]
    fn merging() {
        let rules = PathRules { merge_slashes: true, ..PathRules::default() };
        for (path, expected) in [
            ("//a///b//", "/a/b/"),
            ("/a/b", "/a/b"),
            ("//", "/"),
            ("/a//b?c//d", "/a/b?c//d"),
            ("/a/..//b", "/a/../b"),
        ] {
            assert_eq!(apply(path, rules), Ok((PathAction::Continue, expected.to_string())), "{path}");
        }
    }

    #[test]
    fn escaped_slashes() {
        let path = "/private/..%2Fpublic%5c%2e%2Fabc?q=%2F";
        let rules = |escaped_slashes| PathRules { normalize: true, merge_slashes: false, escaped_slashes };
        assert_eq!(
            apply(path, rules(EscapedSlashes::UnescapeAndForward)),
            Ok((PathAction::Continue, "/public/abc?q=%2F".to_string()))
        );
        assert_eq!(
            apply(path, rules(EscapedSlashes::UnescapeAndRedirect)),
            Ok((PathAction::Redirect, "/public/abc?q=%2F".to_string()))
        );
        assert_eq!(apply(path, rules(EscapedSlashes::Reject)), Err(HttpError::EscapedSlash));
        assert_eq!(apply("/a?%2F", rules(EscapedSlashes::Reject)).unwrap().1, "/a?%2F");
        let only = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndRedirect, ..PathRules::default() };
        assert_eq!(
            apply("/private%2f../%2e%5Cpublic", only),
            Ok((PathAction::Redirect, "/private/../%2e\\public".to_string()))
        );
        assert_eq!(apply("/a%2Fb", PathRules::default()).unwrap().1, "/a%2Fb");
    }

    #[test]
    fn fragments_are_refused() {
        assert_eq!(apply("/a#b", PathRules::default()), Err(HttpError::PathFragment));
        assert_eq!(apply("/a?b#c", PathRules::default()), Err(HttpError::PathFragment));
    }
}
