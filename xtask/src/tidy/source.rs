//! Finds the files to check and parses one Rust file: its syntax tree, its tokens by line, and which lines
//! are tests.

use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;

/// The files that are, or are about to be, in the repository.
pub fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<String> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_string)
        .collect();
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file, or nothing if it is not text.
pub fn read_text(root: &Path, path: &str) -> anyhow::Result<Option<String>> {
    let bytes = match std::fs::read(root.join(path)) {
        Ok(bytes) => bytes,
        // Another process may have moved it since it was listed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {path}")),
    };
    Ok(String::from_utf8(bytes).ok())
}

/// One token that matters to the checks. Literals and comments are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// An identifier or keyword.
    Word(String),
    /// One character of punctuation, or an opening or closing bracket.
    Mark(char),
}

/// One parsed Rust file.
pub struct Source<'a> {
    /// Path from the root, with slashes.
    pub path: &'a str,
    /// Lines in the file.
    pub lines: usize,
    /// The syntax tree.
    pub tree: syn::File,
    /// Every token with its line.
    pub tokens: Vec<(Token, usize)>,
    /// The lines of inline test modules.
    pub test_modules: Vec<RangeInclusive<usize>>,
}

impl<'a> Source<'a> {
    /// Parses `text`.
    pub fn parse(path: &'a str, text: &str) -> syn::Result<Source<'a>> {
        let tree = syn::parse_file(text)?;
        let stream: TokenStream = syn::parse_str(text)?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let test_modules = tree.items.iter().filter_map(inline_tests).collect();
        Ok(Source {
            path,
            lines: text.lines().count(),
            tree,
            tokens,
            test_modules,
        })
    }

    /// The crate the file belongs to.
    pub fn crate_name(&self) -> &str {
        let mut parts = self.path.split('/');
        match parts.next() {
            Some("crates") => parts.next().unwrap_or(""),
            first => first.unwrap_or(""),
        }
    }

    /// Whether the whole file is tests.
    pub fn is_test_file(&self) -> bool {
        is_test_path(self.path)
    }

    /// Whether `line` is test code.
    pub fn in_tests(&self, line: usize) -> bool {
        self.is_test_file() || self.test_modules.iter().any(|lines| lines.contains(&line))
    }
}

/// `tests/…`, `…/tests/…` and `…/tests.rs` hold nothing but tests.
fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The lines of `item` if it is a module with a body, compiled for tests only.
fn inline_tests(item: &syn::Item) -> Option<RangeInclusive<usize>> {
    let syn::Item::Mod(module) = item else { return None };
    module.content.as_ref()?;
    let for_tests = module.attrs.iter().any(is_cfg_test);
    for_tests.then(|| {
        let first = module
            .attrs
            .first()
            .map_or(module.span().start().line, |a| a.span().start().line);
        first..=module.span().end().line
    })
}

/// Whether an attribute is `#[cfg(test)]` or a `cfg` that asks for `test` among others.
pub fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let mut words = Vec::new();
    flatten(list.tokens.clone(), &mut words);
    let has = |name: &str| {
        words
            .iter()
            .any(|(token, _)| *token == Token::Word(name.to_string()))
    };
    has("test") && !has("not")
}

fn flatten(stream: TokenStream, into: &mut Vec<(Token, usize)>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(word) => {
                let word = word.to_string();
                into.push((Token::Word(word.trim_start_matches("r#").to_string()), line));
            }
            TokenTree::Punct(mark) => into.push((Token::Mark(mark.as_char()), line)),
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ('(', ')'),
                    Delimiter::Brace => ('{', '}'),
                    Delimiter::Bracket => ('[', ']'),
                    Delimiter::None => (' ', ' '),
                };
                into.push((Token::Mark(open), line));
                flatten(group.stream(), into);
                into.push((Token::Mark(close), group.span_close().end().line));
            }
        }
    }
}
