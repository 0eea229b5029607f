//! Which routes of a virtual host can match a path at all, in configured order: so that thousands of routes cost
//! no more than a few. It only leaves out; who asks still checks each candidate in full.
//!
//! Literal paths are sorted. All prefixes of a path that are in a sorted list are prefixes of the greatest entry
//! not above the path, so one binary search and a chain of "longest proper prefix" links find them all.

use crate::{PathMatch, Route};
use std::sync::Arc;

/// Fewer routes are scanned faster than an index is asked.
pub const INDEXED_ROUTES_MIN: usize = 32;
/// Lists that are merged for one path: prefixes nested deeper are not indexed.
const LISTS_MAX: usize = 16;
const NO_PARENT: u32 = u32::MAX;

#[derive(Debug, Default, PartialEq)]
pub struct RouteIndex {
    exact: Vec<(Box<[u8]>, Vec<u32>)>,
    prefixes: Vec<Prefix>,
    /// Regular expressions, any case, CONNECT: candidates of every path.
    rest: Vec<u32>,
}

#[derive(Debug, PartialEq)]
struct Prefix {
    text: Box<[u8]>,
    /// The longest other entry that this one begins with.
    parent: u32,
    routes: Vec<u32>,
}

impl RouteIndex {
    /// None: too few routes to be worth it.
    pub fn of(routes: &[Arc<Route>]) -> Option<RouteIndex> {
        if routes.len() < INDEXED_ROUTES_MIN {
            return None;
        }
        let (mut exact, mut prefix, mut index) = (Vec::new(), Vec::new(), RouteIndex::default());
        for (number, route) in (0u32..).zip(routes) {
            match &route.matches.path {
                PathMatch::Exact { text, ignore_case: false } => exact.push((text.as_bytes().into(), number)),
                PathMatch::Prefix { text, ignore_case: false }
                | PathMatch::SeparatedPrefix { text, ignore_case: false } => {
                    prefix.push((text.as_bytes().into(), number));
                }
                _ => index.rest.push(number),
            }
        }
        index.exact = grouped(exact);
        index.link_prefixes(grouped(prefix));
        index.flatten_deep();
        Some(index)
    }

    fn link_prefixes(&mut self, sorted: Vec<(Box<[u8]>, Vec<u32>)>) {
        let mut open: Vec<u32> = Vec::new();
        for (number, (text, routes)) in (0u32..).zip(sorted) {
            while let Some(&last) = open.last() {
                if text.starts_with(&self.prefixes[last as usize].text) {
                    break;
                }
                open.pop();
            }
            let parent = open.last().copied().unwrap_or(NO_PARENT);
            self.prefixes.push(Prefix { text, parent, routes });
            open.push(number);
        }
    }

    /// Routes of prefixes nested deeper than can be merged become candidates of every path.
    fn flatten_deep(&mut self) {
        let depth = |mut at: u32| {
            let mut depth = 0;
            while at != NO_PARENT {
                depth += 1;
                at = self.prefixes[at as usize].parent;
            }
            depth
        };
        let deep: Vec<usize> =
            (0..self.prefixes.len()).filter(|&at| depth(at as u32) > LISTS_MAX - 2).collect();
        for at in deep {
            let routes = std::mem::take(&mut self.prefixes[at].routes);
            self.rest.extend(routes);
        }
        self.rest.sort_unstable();
    }

    /// Numbers of the routes that may match, ascending. `path` without query.
    pub fn candidates<'a>(&'a self, path: &[u8]) -> Candidates<'a> {
        let mut candidates = Candidates { lists: [&[]; LISTS_MAX], used: 0 };
        candidates.add(&self.rest);
        if let Ok(at) = self.exact.binary_search_by(|entry| (*entry.0).cmp(path)) {
            candidates.add(&self.exact[at].1);
        }
        let mut at = self.prefixes.partition_point(|prefix| *prefix.text <= *path) as u32;
        at = at.checked_sub(1).unwrap_or(NO_PARENT);
        while at != NO_PARENT {
            let prefix = &self.prefixes[at as usize];
            if path.starts_with(&prefix.text) {
                candidates.add(&prefix.routes);
            }
            at = prefix.parent;
        }
        candidates
    }
}

/// Sorted by text; routes of one text together, in order.
fn grouped(mut entries: Vec<(Box<[u8]>, u32)>) -> Vec<(Box<[u8]>, Vec<u32>)> {
    entries.sort();
    let mut groups: Vec<(Box<[u8]>, Vec<u32>)> = Vec::new();
    for (text, number) in entries {
        match groups.last_mut() {
            Some((last, numbers)) if *last == text => numbers.push(number),
            _ => groups.push((text, vec![number])),
        }
    }
    groups
}

/// A merge of a few sorted lists, without memory of its own.
#[derive(Debug)]
pub struct Candidates<'a> {
    lists: [&'a [u32]; LISTS_MAX],
    used: usize,
}

impl<'a> Candidates<'a> {
    fn add(&mut self, list: &'a [u32]) {
        if !list.is_empty() && self.used < LISTS_MAX {
            self.lists[self.used] = list;
            self.used += 1;
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let heads = self.lists[..self.used].iter_mut();
        let least = heads.filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
        let number = least[0];
        *least = &least[1..];
        Some(number as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, HeaderRules, PerRouteFilters, RouteMatch, StatBlock};

    fn routes(paths: Vec<PathMatch>) -> Vec<Arc<Route>> {
        let route = |path| Route {
            name: String::new(),
            matches: RouteMatch {
                path,
                headers: Vec::new(),
                query: Vec::new(),
                fraction: None,
                grpc: false,
                tls_presented: None,
                tls_validated: None,
            },
            action: Action::None,
            headers: HeaderRules::default(),
            filters: PerRouteFilters::default(),
            stats: StatBlock::default(),
        };
        paths.into_iter().map(|path| Arc::new(route(path))).collect()
    }

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix { text: text.into(), ignore_case: false }
    }

    fn exact(text: &str) -> PathMatch {
        PathMatch::Exact { text: text.into(), ignore_case: false }
    }

    #[test]
    fn candidates_are_those_that_can_match_in_order() {
        let mut paths: Vec<PathMatch> = (0..40).map(|n| prefix(&format!("/other/{n}/"))).collect();
        paths.extend([
            exact("/a/b"),
            prefix("/a/b"),
            prefix("/"),
            PathMatch::Connect,
            prefix("/a"),
            exact("/a/b"),
        ]);
        let routes = routes(paths);
        let index = RouteIndex::of(&routes).unwrap();
        let asked = |path: &str| index.candidates(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(asked("/a/b"), [40, 41, 42, 43, 44, 45]);
        assert_eq!(asked("/a/c"), [42, 43, 44]);
        assert_eq!(asked("/other/7/x"), [7, 42, 43]);
        assert_eq!(asked("*"), [43]);
    }

    #[test]
    fn few_routes_need_none() {
        assert_eq!(RouteIndex::of(&routes(vec![prefix("/")])), None);
    }

    #[test]
    fn deep_nesting_loses_no_route() {
        let nested: Vec<String> = (1..60).map(|n| "/a".repeat(n)).collect();
        let routes = routes(nested.iter().rev().map(|text| prefix(text)).collect());
        let index = RouteIndex::of(&routes).unwrap();
        let found: Vec<usize> = index.candidates(nested[58].as_bytes()).collect();
        assert_eq!(found, (0..59).collect::<Vec<_>>());
        for (len, text) in nested.iter().enumerate() {
            let first = index.candidates(text.as_bytes()).find(|&n| text.starts_with(&nested[58 - n]));
            assert_eq!(first, Some(58 - len));
        }
    }
}
