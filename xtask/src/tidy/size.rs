//! Functions end at 70 lines, files at 500 before tests, inline tests at 100. There is no list of exceptions.

use syn::spanned::Spanned;
use syn::visit::Visit;

use super::finding::Finding;
use super::source::Source;

/// Longest function, from its signature to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Longest file, its inline tests left out.
pub const FILE_LINES_MAX: usize = 500;
/// Longest inline test module.
pub const INLINE_TEST_LINES_MAX: usize = 100;

/// Checks one file. Test files are free.
pub fn check(source: &Source<'_>) -> Vec<Finding> {
    if source.is_test_file() {
        return Vec::new();
    }
    let mut findings = file_size(source);
    let mut visitor = Functions {
        source,
        findings: Vec::new(),
    };
    visitor.visit_file(&source.tree);
    findings.extend(visitor.findings);
    findings
}

fn file_size(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut test_lines = 0;
    for lines in &source.test_modules {
        let count = lines.end() - lines.start() + 1;
        test_lines += count;
        if count > INLINE_TEST_LINES_MAX {
            let what = format!("inline tests of {count} lines (at most {INLINE_TEST_LINES_MAX})");
            let instead = format!("move them to {}/tests.rs", source.path.trim_end_matches(".rs"));
            findings.push(Finding::new(source.path, *lines.start(), what, instead));
        }
    }
    let body = source.lines - test_lines.min(source.lines);
    if body > FILE_LINES_MAX {
        let what = format!("file of {body} lines before tests (at most {FILE_LINES_MAX})");
        findings.push(Finding::new(
            source.path,
            1,
            what,
            "split it by responsibility: foo.rs beside foo/",
        ));
    }
    findings
}

struct Functions<'a> {
    source: &'a Source<'a>,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn judge(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let lines = body.span().end().line - first + 1;
        if lines > FUNCTION_LINES_MAX && !self.source.in_tests(first) {
            let what = format!(
                "function `{}` has {lines} lines (at most {FUNCTION_LINES_MAX})",
                signature.ident
            );
            let instead = "give its parts names: decide in one function, do in others";
            self.findings
                .push(Finding::new(self.source.path, first, what, instead));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.judge(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.judge(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.judge(&item.sig, body);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}
