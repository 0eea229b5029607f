//! The tree's text files, read once. Rust sources come with a masked copy: same length, same lines, but comments and
//! the insides of literals blanked, so that a rule which looks for a word finds code only.

use crate::mask;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

const SKIPPED_FOLDERS: &[&str] =
    &["target", ".git", ".tools", "node_modules", "__pycache__", "results", "corpus"];
const TEXT: &[&str] = &["rs", "toml", "md", "yaml", "yml", "json", "py", "sh", "txt", "proto", ""];

pub struct Tree {
    pub root: PathBuf,
    pub files: Vec<File>,
}

pub struct File {
    /// From the root, with `/`.
    pub path: String,
    pub text: String,
    /// Rust only.
    pub code: String,
}

impl Tree {
    pub fn get() -> &'static Tree {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("the crate lies in the workspace")
                .to_owned();
            let mut files = Vec::new();
            read(&root, &root, &mut files);
            files.sort_by(|a, b| a.path.cmp(&b.path));
            Tree { root, files }
        })
    }

    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    pub fn manifests(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"))
    }

    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    /// Sources that ship: not tests, examples, benches or what a generator wrote.
    pub fn is_shipped(&self) -> bool {
        let tests =
            ["/tests/", "/examples/", "/benches/", "/fuzz/"].iter().any(|part| self.path.contains(part));
        let by_name = self.path.ends_with("tests.rs") || self.path.ends_with("/build.rs");
        self.path.contains("/src/") && !tests && !by_name && !self.is_generated()
    }

    pub fn is_generated(&self) -> bool {
        self.path.contains("/generated/") || self.path.ends_with(".proto")
    }

    /// The masked code above the file's test module.
    pub fn shipped_code(&self) -> &str {
        let end = self.code.find("#[cfg(test)]\nmod ").filter(|at| is_inline_module(&self.code[*at..]));
        &self.code[..end.unwrap_or(self.code.len())]
    }
}

fn is_inline_module(code: &str) -> bool {
    code.lines().nth(1).is_some_and(|line| line.ends_with('{'))
}

pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Where `word` stands in `code` as a whole word, or path, or whatever begins and ends at a word's edge.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = code.as_bytes();
        let before = in_word(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && in_word(word.as_bytes().first());
        let after = in_word(bytes.get(at + word.len())) && in_word(word.as_bytes().last());
        !before && !after
    })
}

fn read(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a readable tree").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a readable tree");
        if kind.is_dir() {
            if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                read(root, &path, files);
            }
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        if !kind.is_file() || !TEXT.contains(&extension.as_str()) {
            continue;
        }
        // not text, or gone since it was listed
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let code = if extension == "rs" { mask::mask(&text) } else { String::new() };
        let relative = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        files.push(File { path: relative, text, code });
    }
}
