//! `${NAME}` and `${NAME:-default}` inside strings of `proxy.toml`; `$$` stands for one `$`.

/// A string with its variables expanded.
#[derive(Debug, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub value: String,
    /// Whether it contains the value of a variable. Such a text is never shown.
    pub from_environment: bool,
}

/// Why a string's variables cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub enum EnvError {
    /// The variable is not set, and there is no default.
    Unset(String),
    /// `${` without `}`.
    Unclosed,
    /// An invalid name of a variable.
    Name(String),
    /// A `$` on its own.
    Dollar,
}

impl EnvError {
    /// The message.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Unset(name) => format!("the environment variable `{name}` is not set"),
            Self::Unclosed => "`${` has no closing `}`".into(),
            Self::Name(name) if name.is_empty() => "`${}` names no variable".into(),
            Self::Name(_) => "this is not the name of an environment variable".into(),
            Self::Dollar => "a `$` stands alone".into(),
        }
    }

    /// How to fix it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unset(name) => format!("set it, or give a default: `${{{name}:-default}}`"),
            Self::Unclosed | Self::Name(_) => {
                "write `${NAME}` or `${NAME:-default}`; names have letters, digits and `_`".into()
            }
            Self::Dollar => "write `$$` for a dollar sign, `${NAME}` for a variable".into(),
        }
    }

    /// The text to look for in the source, so that the diagnostic points at it.
    #[must_use]
    pub fn needle(&self) -> String {
        match self {
            Self::Unset(name) | Self::Name(name) => format!("${{{name}"),
            Self::Unclosed => "${".into(),
            Self::Dollar => "$".into(),
        }
    }
}

/// Expands all variables, or returns all faults.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, Vec<EnvError>> {
    let mut expanded =
        Expanded { value: String::with_capacity(text.len()), from_environment: false };
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.value.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.value.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let Some((reference, after)) = inner.split_once('}') else {
                errors.push(EnvError::Unclosed);
                break;
            };
            rest = after;
            if let Err(error) = substitute(reference, env, &mut expanded) {
                errors.push(error);
            }
        } else {
            errors.push(EnvError::Dollar);
        }
    }
    expanded.value.push_str(rest);
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

/// Expands one reference. As in a shell, the default after `:-` also replaces an empty variable.
fn substitute(
    reference: &str,
    env: &dyn Fn(&str) -> Option<String>,
    expanded: &mut Expanded,
) -> Result<(), EnvError> {
    let (name, default) = reference
        .split_once(":-")
        .map_or((reference, None), |(name, default)| (name, Some(default)));
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() || !valid {
        return Err(EnvError::Name(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), None) => {
            expanded.value.push_str(&value);
            expanded.from_environment = true;
        }
        (Some(value), Some(_)) if !value.is_empty() => {
            expanded.value.push_str(&value);
            expanded.from_environment = true;
        }
        (_, Some(default)) => expanded.value.push_str(default),
        (None, None) => return Err(EnvError::Unset(name.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("redis.internal".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_dollars() {
        let value = |text| expand(text, &env).map(|expanded| expanded.value);
        assert_eq!(value("a"), Ok("a".into()));
        assert_eq!(value("redis://${HOST}:6379"), Ok("redis://redis.internal:6379".into()));
        assert_eq!(value("${PORT:-8080}"), Ok("8080".into()));
        assert_eq!(value("${EMPTY:-x}${EMPTY}"), Ok("x".into()));
        assert_eq!(value("$${HOST}"), Ok("${HOST}".into()));
        assert_eq!(value("${PORT}"), Err(vec![EnvError::Unset("PORT".into())]));
        assert_eq!(
            value("$x ${1A} ${"),
            Err(vec![EnvError::Dollar, EnvError::Name("1A".into()), EnvError::Unclosed])
        );
    }

    #[test]
    fn a_default_is_not_from_the_environment() {
        assert!(!expand("${PORT:-8080}", &env).unwrap().from_environment);
        assert!(expand("${HOST:-x}", &env).unwrap().from_environment);
    }
}
