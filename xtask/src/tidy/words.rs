//! Words that say nothing, or that belong to other systems, are not used in names: those of files, items,
//! fields and bindings. Names of other people's crates and methods are theirs.

use proc_macro2::Ident;
use syn::visit::Visit;

use super::finding::Finding;
use super::source::Source;

/// Each banned word with what to say.
pub const BANNED: &[(&str, &str)] = &[
    ("region", "partition"),
    ("tablet", "partition"),
    ("master", "leader"),
    ("manager", "the noun of what it does: registry, scheduler, router"),
    ("helper", "the verb of what it does"),
    ("util", "the thing it works on"),
    ("misc", "the thing it holds"),
];

/// Checks the parts of a path.
pub fn check_path(path: &str) -> Vec<Finding> {
    path.split('/')
        .flat_map(|part| judge(path, 0, "path", part))
        .collect()
}

/// Checks the names a file declares.
pub fn check(source: &Source<'_>) -> Vec<Finding> {
    let mut names = Names { declared: Vec::new() };
    names.visit_file(&source.tree);
    let each = names.declared.iter();
    each.flat_map(|(name, line)| judge(source.path, *line, "name", name))
        .collect()
}

fn judge(path: &str, line: usize, kind: &str, name: &str) -> Option<Finding> {
    let words = words_of(name);
    let (word, instead) = BANNED
        .iter()
        .find(|(banned, _)| words.iter().any(|word| is(word, banned)))?;
    Some(Finding::new(
        path,
        line,
        format!("{kind} `{name}` uses the word {word}"),
        format!("say {instead}"),
    ))
}

/// The word itself or its plural.
fn is(word: &str, banned: &str) -> bool {
    word.strip_prefix(banned)
        .is_some_and(|rest| rest.is_empty() || rest == "s")
}

/// `snake_case`, `kebab-case`, `file.name` and `CamelCase` taken apart, in lower case.
pub fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && previous_lower) {
            words.push(String::new());
        }
        previous_lower = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            let last = words.last_mut().expect("there is always a word");
            last.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

struct Names {
    declared: Vec<(String, usize)>,
}

impl Names {
    fn add(&mut self, name: &Ident) {
        self.declared.push((name.to_string(), name.span().start().line));
    }
}

/// Writes a visitor method that records the name a node declares and goes on inside it.
macro_rules! declares {
    ($($method:ident $kind:ident ($node:ident) $name:expr;)*) => {
        $(fn $method(&mut self, $node: &'ast syn::$kind) {
            self.add($name);
            syn::visit::$method(self, $node);
        })*
    };
}

impl<'ast> Visit<'ast> for Names {
    declares! {
        visit_signature Signature (node) &node.ident;
        visit_item_struct ItemStruct (node) &node.ident;
        visit_item_enum ItemEnum (node) &node.ident;
        visit_item_trait ItemTrait (node) &node.ident;
        visit_item_type ItemType (node) &node.ident;
        visit_item_const ItemConst (node) &node.ident;
        visit_item_static ItemStatic (node) &node.ident;
        visit_item_mod ItemMod (node) &node.ident;
        visit_impl_item_const ImplItemConst (node) &node.ident;
        visit_variant Variant (node) &node.ident;
        visit_pat_ident PatIdent (node) &node.ident;
        visit_use_rename UseRename (node) &node.rename;
    }

    fn visit_field(&mut self, node: &'ast syn::Field) {
        if let Some(name) = &node.ident {
            self.add(name);
        }
        syn::visit::visit_field(self, node);
    }
}
