//! "Did you mean": the nearest known name, where one is near.

/// The candidate with the smallest edit distance, if that is at most a third of the name's length; a candidate that
/// merely extends the name (or the other way round) counts as near too.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).max(1);
    candidates
        .filter_map(|candidate| {
            let distance = distance(name, candidate, limit);
            let extends = name.len() >= 4 && (candidate.ends_with(name) || candidate.starts_with(name));
            match distance {
                Some(distance) => Some((distance, candidate)),
                None if extends => Some((limit + candidate.len(), candidate)),
                None => None,
            }
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Names longer than this are not compared.
const NAME_MAX: usize = 80;

/// Optimal string alignment distance (a swap of neighbours counts one); None: above the limit.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit || a.len() > NAME_MAX || b.len() > NAME_MAX {
        return None;
    }
    let mut rows = [[0usize; NAME_MAX + 1]; 3];
    for (j, cell) in rows[1].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[1][j] + 1).min(rows[2][j - 1] + 1).min(rows[1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    Some(rows[1][b.len()]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos_and_nothing_else() {
        let names = ["connect_timeout", "load_assignment", "lb_policy", "name", "typed_config"];
        for (written, meant) in [
            ("conect_timeout", Some("connect_timeout")),
            ("load_asignments", Some("load_assignment")),
            ("lb_polciy", Some("lb_policy")),
            ("nmae", Some("name")),
            ("config", Some("typed_config")),
            ("hosts", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, names.into_iter()), meant, "{written}");
        }
    }
}
