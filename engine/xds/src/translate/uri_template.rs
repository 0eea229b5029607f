//! envoy.extensions.path.match.uri_template.v3: a path with globs and variables, as a regular expression.
//!
//! `*` is one segment's text and never empty, `**` any text; `{name}` is `*` by another name and
//! `{name=pattern}` one or more segments.

use corelane_snapshot::Regex;

/// Characters of a segment: RFC 3986's pchar without `*`.
const PCHAR: &str = "a-zA-Z0-9\\-._~%!$&'()+,;:@=";
/// uri_template_internal.h: variables in one template, and the bytes of one's name.
const VARIABLES_MAX: usize = 5;
const NAME_BYTES_MAX: usize = 16;

/// # Errors
/// What the template can't have.
pub(super) fn compile(template: &str) -> Result<Regex, String> {
    let Some(path) = template.strip_prefix('/') else { return Err("must begin with `/`".into()) };
    let mut names = Vec::new();
    let mut out = String::with_capacity(template.len() * 4);
    let mut rest = path;
    let mut after_any = false;
    out.push('/');
    while let Some(next) = rest.chars().next() {
        if after_any && next != '/' {
            return Err("`**` must be the last of its segment".into());
        }
        if next == '{' {
            let Some((inner, after)) = rest[1..].split_once('}') else {
                return Err("`{` has no closing `}`".into());
            };
            let any = variable(inner, &mut names, &mut out)?;
            if any && !after.is_empty() {
                return Err("nothing may follow a variable that ends with `**`".into());
            }
            rest = after;
            continue;
        }
        let len = literal_or_glob(rest, &mut out)?;
        after_any = rest.starts_with("**");
        if after_any && rest[len..].contains('*') | rest[len..].contains('{') {
            return Err("no glob or variable may follow `**`".into());
        }
        rest = &rest[len..];
    }
    Regex::new(&out).map_err(super::matcher::reason)
}

/// True: it ends with `**`.
fn variable<'t>(inner: &'t str, names: &mut Vec<&'t str>, out: &mut String) -> Result<bool, String> {
    let (name, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(format!(
            "`{name}` is no name of a variable: a letter, then letters, digits and `_`, {NAME_BYTES_MAX} at most"
        ));
    }
    if names.contains(&name) {
        return Err(format!("variable `{name}` is there twice"));
    }
    names.push(name);
    if names.len() > VARIABLES_MAX {
        return Err(format!("more than {VARIABLES_MAX} variables"));
    }
    if pattern.is_empty() || pattern.starts_with('/') {
        return Err(format!("variable `{name}` has no pattern that begins with a segment"));
    }
    let mut rest = pattern;
    while !rest.is_empty() {
        let len = literal_or_glob(rest, out)?;
        if rest.starts_with("**") && rest.len() > len {
            return Err("nothing may follow `**` in a variable".into());
        }
        rest = &rest[len..];
    }
    Ok(pattern.ends_with("**"))
}

/// The bytes of what comes next: `**`, `*`, or one character as it is.
fn literal_or_glob(rest: &str, out: &mut String) -> Result<usize, String> {
    if rest.starts_with("**") {
        out.push_str(&format!("[{PCHAR}/]*"));
        return Ok(2);
    }
    let Some(next) = rest.chars().next() else { return Ok(0) };
    match next {
        '*' => out.push_str(&format!("[{PCHAR}]+")),
        '/' => out.push('/'),
        next if next.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(next) => {
            if !next.is_ascii_alphanumeric() {
                out.push('\\');
            }
            out.push(next);
        }
        other => return Err(format!("`{other}` can't stand in a path")),
    }
    Ok(next.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Envoy 1.40 matched of these paths.
    #[test]
    fn templates_match_as_envoys_do() {
        const PATHS: [&str; 6] = ["/b/c", "/b/c/d", "/b/", "/b", "/a", "/b/x-y"];
        for (template, expected) in [
            ("/b/{x}", &["/b/c", "/b/x-y"][..]),
            ("/b/*", &["/b/c", "/b/x-y"]),
            ("/**", &PATHS),
            ("/b/**", &["/b/c", "/b/c/d", "/b/", "/b/x-y"]),
            ("/b/{x=**}", &["/b/c", "/b/c/d", "/b/", "/b/x-y"]),
            ("/{x}/{y=c/d}", &["/b/c/d"]),
            ("/b/c{x}", &[]),
            ("/b/{x=*}/d", &["/b/c/d"]),
            ("/b/x-{y}", &["/b/x-y"]),
            ("/b/", &["/b/"]),
            ("/b", &["/b"]),
            ("/{a}/{b=c/*}", &["/b/c/d"]),
            ("/{x=b/**}", &["/b/c", "/b/c/d", "/b/", "/b/x-y"]),
        ] {
            let regex = compile(template).unwrap();
            let matched: Vec<&str> =
                PATHS.into_iter().filter(|path| regex.is_match(path.as_bytes())).collect();
            assert_eq!(matched, expected, "{template}");
        }
        assert!(compile("/a.c").unwrap().is_match(b"/a.c"));
        assert!(!compile("/a.c").unwrap().is_match(b"/abc"));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, reason) in [
            ("b", "must begin with `/`"),
            ("/{x", "`{` has no closing `}`"),
            ("/{x}/{x}", "variable `x` is there twice"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "more than 5 variables"),
            ("/**/{x}", "no glob or variable may follow `**`"),
            ("/{x=**}/a", "nothing may follow a variable that ends with `**`"),
            ("/{x=/a}", "variable `x` has no pattern that begins with a segment"),
            ("/a b", "` ` can't stand in a path"),
        ] {
            assert_eq!(compile(template).unwrap_err(), reason, "{template}");
        }
    }
}
