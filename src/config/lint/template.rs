//! Decides whether two tag templates can render the same tag, by the values that fields can have.
//! Knows no rules.

use crate::policy::field::FieldSource;
use crate::policy::fold::fold;
use crate::policy::route::Pattern;
use crate::policy::template::Template;

/// One element of the pattern of tags that a template can render.
#[derive(Clone, Copy)]
enum TemplateStep {
    /// This character.
    Char(char),
    /// One character of a value.
    One { colon: bool },
    /// Any number of further characters.
    More { colon: bool },
}

/// Whether some tag can come from both. Values are assumed to have no `:`, which separates the
/// parts of a tag, unless they are a host or the rest of a path.
pub fn overlap(one: (&Template, &Pattern), other: (&Template, &Pattern)) -> bool {
    let (one, other) = (steps(one.0, one.1), steps(other.0, other.1));
    // Computed from the end: whether the rests of both can be the same.
    let mut left = vec![vec![false; other.len() + 1]; one.len() + 1];
    for i in (0..=one.len()).rev() {
        for j in (0..=other.len()).rev() {
            left[i][j] = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some(TemplateStep::More { .. }), None) => left[i + 1][j],
                (None, Some(TemplateStep::More { .. })) => left[i][j + 1],
                (Some(TemplateStep::More { .. }), Some(TemplateStep::More { .. })) => {
                    left[i + 1][j] || left[i][j + 1]
                }
                (Some(TemplateStep::More { colon }), Some(step)) => {
                    left[i + 1][j] || (fits(*colon, *step) && left[i][j + 1])
                }
                (Some(step), Some(TemplateStep::More { colon })) => {
                    left[i][j + 1] || (fits(*colon, *step) && left[i + 1][j])
                }
                (Some(TemplateStep::Char(a)), Some(TemplateStep::Char(b))) => {
                    a == b && left[i + 1][j + 1]
                }
                (Some(TemplateStep::One { colon }), Some(step))
                | (Some(step), Some(TemplateStep::One { colon })) => {
                    fits(*colon, *step) && left[i + 1][j + 1]
                }
                _ => false,
            };
        }
    }
    left[0][0]
}

const fn fits(colon: bool, step: TemplateStep) -> bool {
    colon || !matches!(step, TemplateStep::Char(':'))
}

fn steps(template: &Template, pattern: &Pattern) -> Vec<TemplateStep> {
    let rest = pattern.as_str().rsplit_once("/{*").map(|(_, name)| name.trim_end_matches('}'));
    let mut fields = template.fields();
    let mut steps = Vec::new();
    let mut inside = false;
    for c in template.as_str().chars() {
        match c {
            '{' => {
                inside = true;
                let field = fields.next();
                let colon = match field.map(|field| &field.source) {
                    Some(FieldSource::Host) => true,
                    Some(FieldSource::Path(name)) => rest == Some(&**name),
                    _ => false,
                };
                if !field.is_some_and(|field| field.is_optional) {
                    steps.push(TemplateStep::One { colon });
                }
                steps.push(TemplateStep::More { colon });
            }
            '}' => inside = false,
            _ if inside => {}
            // As tags are compared.
            c => steps.extend(fold(c.encode_utf8(&mut [0; 4])).chars().map(TemplateStep::Char)),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::field::Field;
    use std::sync::Arc;

    fn can(one: &str, other: &str) -> bool {
        let resolve = |name: &str| {
            let source = match name {
                "host" => FieldSource::Host,
                "rest" | "id" => FieldSource::Path(name.into()),
                name => FieldSource::Query(name.into()),
            };
            Some(Arc::new(Field::new(name, source)))
        };
        let pattern = Pattern::parse("/a/{id}/{*rest}").expect("a pattern");
        let read = |text| Template::parse(text, &resolve).expect("a template");
        let (one, other) = (read(one), read(other));
        let answer = overlap((&one, &pattern), (&other, &pattern));
        assert_eq!(
            answer,
            overlap((&other, &pattern), (&one, &pattern)),
            "it is the same the other way round"
        );
        answer
    }

    #[test]
    fn templates_meet_when_some_tag_comes_from_both() {
        for (one, other) in [
            ("a", "a"),
            ("a:{x}", "a:{y}"),
            ("a:{x}", "a:7"),
            ("{x}:{y}", "a:{id}"),
            ("a:{x}:b", "a:{y}:b"),
            ("{x}", "{y}z"),
            ("a{x}", "ab{y}"),
            ("a:{rest}", "a:{x}:{y}"),
            ("h:{host}", "h:localhost:80"),
        ] {
            assert!(can(one, other), "{one} {other}");
        }
    }

    #[test]
    fn templates_do_not_meet_when_no_tag_comes_from_both() {
        for (one, other) in [
            ("a", "b"),
            ("a:{x}", "a:"),
            ("campaigns:{x}", "campaign:{x}"),
            ("campaign:{x}", "campaign:{x}:{y}"),
            ("a:{x}:b", "a:{x}:c"),
            ("a:{id}", "a:7:8"),
            ("{x}", "a:b"),
        ] {
            assert!(!can(one, other), "{one} {other}");
        }
    }
}
