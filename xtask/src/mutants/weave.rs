//! Weaves many mutants into one text, each behind a switch that the environment sets.
//!
//! A build for each mutant costs half a minute of processor time, which is more than the tests of
//! most mutants. So every mutant is compiled in, and a switch selects one (`switch.rs`). A changed
//! operator becomes `(if on(7) { a < b } else { a <= b })`, a replaced body an early return, a
//! deleted arm an arm with a guard. Changes of operators replace the whole chain of operators
//! around them, as text, so that `a && b || c` is parsed as the compiler would parse it. Mutants
//! that cannot be woven (constants, `const fn`, a body of another type) are built separately.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use proc_macro2::LineColumn;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::list::Mutant;

/// The path of the switch in the woven crate.
pub(super) const ON: &str = "crate::machine_mutants::on";

/// One place of a text where mutants are woven in.
#[derive(Default)]
struct Place {
    /// Always inserted; only if the place is empty.
    insertion: String,
    variants: Vec<Variant>,
}

/// The text that a mutant puts into its place.
struct Variant {
    number: usize,
    range: Range<usize>,
    text: String,
}

/// Where in a file the syntax is that the mutants change.
struct Found<'a> {
    lines: &'a Lines<'a>,
    /// The operator's start, and the range of the whole chain of operators around it.
    operators: BTreeMap<usize, Range<usize>>,
    unary: BTreeMap<usize, Range<usize>>,
    /// The inside of a function's braces.
    bodies: Vec<Range<usize>>,
    /// The start of an arm, and the end of its pattern. One with a guard is never deleted.
    arms: BTreeMap<usize, usize>,
    guards: BTreeMap<usize, Range<usize>>,
    chain: Option<Range<usize>>,
}

/// The text with these mutants behind their switches.
pub(super) fn weave(text: &str, mutants: &[(usize, &Mutant)]) -> Result<String> {
    let lines = Lines::of(text);
    let found = Found::in_text(text, &lines)?;
    let mut woven = Woven {
        text,
        places: BTreeMap::new(),
    };
    for (number, mutant) in mutants {
        let place = found.place_of(mutant);
        let place = place.with_context(|| format!("no place for {}", mutant.key))?;
        let entry = woven.places.entry((place.start, place.end)).or_default();
        match mutant.genre.as_str() {
            "FnValue" => {
                let early = format!(" if {ON}({number}) {{ return {}; }}", mutant.replacement);
                entry.insertion += &early;
            }
            "MatchArm" => entry.insertion += &format!(" if !{ON}({number})"),
            _ => entry.variants.push(Variant {
                number: *number,
                range: mutant.range(&lines),
                text: mutant.replacement.clone(),
            }),
        }
    }
    Ok(woven.render(0..text.len(), None, None))
}

/// The places of one text, and the text.
struct Woven<'a> {
    text: &'a str,
    places: BTreeMap<(usize, usize), Place>,
}

/// What stands for a range of the text.
enum Piece<'a> {
    Place((usize, usize), &'a Place),
    Text(&'a str),
}

impl Woven<'_> {
    /// The text of a range with the places in it, except for `itself`, and with the change of its
    /// variant.
    fn render(
        &self,
        range: Range<usize>,
        itself: Option<(usize, usize)>,
        variant: Option<&Variant>,
    ) -> String {
        let inside = self.places.iter().filter(|((start, end), _)| {
            let is_inside = range.start <= *start && *end <= range.end;
            // What is put in front of a place was put in front of all its variants.
            let is_before = itself.is_some() && *end == range.start;
            is_inside && !is_before && Some((*start, *end)) != itself
        });
        let pieces = inside.map(|(key, place)| (key.0..key.1, Piece::Place(*key, place)));
        let change = variant.map(|it| (it.range.clone(), Piece::Text(&it.text)));
        let mut pieces: Vec<_> = pieces.chain(change).collect();
        // What is put in goes first, and then the longest: others at its start are inside it.
        pieces.sort_by_key(|(piece, _)| (piece.start, !piece.is_empty(), Reverse(piece.end)));
        let mut out = String::new();
        let mut at = range.start;
        for (covered, piece) in pieces {
            if covered.start < at {
                continue;
            }
            out += &self.text[at..covered.start];
            at = covered.end;
            match piece {
                Piece::Place(key, place) => out += &self.place(key, place),
                Piece::Text(text) => out += text,
            }
        }
        out + &self.text[at..range.end]
    }

    fn place(&self, key: (usize, usize), place: &Place) -> String {
        if key.0 == key.1 {
            return place.insertion.clone();
        }
        let inner = |variant| self.render(key.0..key.1, Some(key), variant);
        let choices = place.variants.iter().map(|variant| {
            let number = variant.number;
            format!("if {ON}({number}) {{ {} }} else ", inner(Some(variant)))
        });
        let choices: String = choices.collect();
        format!("({choices}{{ {} }})", inner(None))
    }
}

impl<'a> Found<'a> {
    fn in_text(text: &str, lines: &'a Lines<'a>) -> Result<Self> {
        let mut found = Found {
            lines,
            operators: BTreeMap::new(),
            unary: BTreeMap::new(),
            bodies: Vec::new(),
            arms: BTreeMap::new(),
            guards: BTreeMap::new(),
            chain: None,
        };
        found.visit_file(&syn::parse_file(text)?);
        Ok(found)
    }

    /// The range that a mutant is woven into.
    fn place_of(&self, mutant: &Mutant) -> Option<Range<usize>> {
        let span = mutant.range(self.lines);
        let empty = |at: usize| at..at;
        match mutant.genre.as_str() {
            "FnValue" => {
                let bodies = self.bodies.iter();
                let around = bodies.filter(|it| it.start <= span.start && span.end <= it.end);
                around.min_by_key(|it| it.len()).map(|it| empty(it.start))
            }
            "BinaryOperator" => self.operators.get(&span.start).cloned(),
            "UnaryOperator" => self.unary.get(&span.start).cloned(),
            "MatchArmGuard" => self.guards.get(&span.start).cloned(),
            "MatchArm" => self.arms.get(&span.start).copied().map(empty),
            _ => None,
        }
    }

    fn range(&self, span: proc_macro2::Span) -> Range<usize> {
        self.lines.offset(span.start())..self.lines.offset(span.end())
    }

    fn body(&mut self, block: &syn::Block) {
        let braces = self.range(block.brace_token.span.join());
        self.bodies.push(braces.start + 1..braces.end - 1);
    }
}

/// Whether a condition binds names, and so cannot be in parentheses.
fn binds(condition: &syn::Expr) -> bool {
    match condition {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(it) => binds(&it.left) || binds(&it.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        let outer = self.chain.take();
        if let syn::Expr::Binary(it) = expr {
            let operator = self.range(it.op.span()).start;
            let whole = match outer {
                Some(chain) => chain,
                None => self.range(expr.span()),
            };
            self.operators.insert(operator, whole.clone());
            // A chain goes on through operands that are operators themselves.
            for operand in [&*it.left, &*it.right] {
                let goes_on = matches!(operand, syn::Expr::Binary(_)) && !binds(expr);
                self.chain = goes_on.then(|| whole.clone());
                self.visit_expr(operand);
                self.chain = None;
            }
            return;
        }
        if let syn::Expr::Unary(it) = expr {
            let operator = self.range(it.op.span()).start;
            let whole = self.range(expr.span());
            self.unary.insert(operator, whole);
        }
        visit::visit_expr(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard {
            let guard = self.range(guard.span());
            self.guards.insert(guard.start, guard);
        }
        let start = self.range(arm.span()).start;
        let pattern = self.range(arm.pat.span());
        self.arms.insert(start, pattern.end);
        visit::visit_arm(self, arm);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// Where each line of a text begins.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Lines { text, starts }
    }

    /// The offset of a line, counted from one, and a column in characters, counted from none.
    pub(super) fn offset(&self, at: LineColumn) -> usize {
        let start = self.starts[at.line - 1];
        let mut characters = self.text[start..].char_indices();
        let offset = characters.nth(at.column).map(|(offset, _)| offset);
        start + offset.unwrap_or(self.text.len() - start)
    }
}
