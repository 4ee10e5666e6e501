//! The JSON Schema of `proxy.toml`, derived from the types of the file, so that editors complete
//! and check what `decode` accepts.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{
    BrowserForm, Count, Fraction, NamedTable, NamedTexts, NamesForm, OWN_KEYS, Period, SecretsForm,
    Setting, Size, StripForm, TextsForm, TomlList, TomlString, TtlForm, ValueTable,
};
use super::file::{self, CompressForm, ConfigFile, QueryForm, SignatureChoice};

/// The schema (builder 2020-12), as text.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<ConfigFile>();
    schema.insert("title".into(), "proxy.toml".into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// The keys of a table of the schema, in the order of the file's types.
#[must_use]
pub fn key_order(definition: &str) -> &'static [&'static str] {
    match definition {
        "ConfigFile" => ConfigFile::KEYS,
        "ListenSection" => file::ListenSection::KEYS,
        "UpstreamSection" => file::UpstreamSection::KEYS,
        "AppSection" => file::AppSection::KEYS,
        "AdminSection" => file::AdminSection::KEYS,
        "MemorySection" => file::MemorySection::KEYS,
        "RedisSection" => file::RedisSection::KEYS,
        "LimitsSection" => file::LimitsSection::KEYS,
        "CodingsSection" => file::CodingsSection::KEYS,
        "FreshnessSection" => file::FreshnessSection::KEYS,
        "LogSection" => file::LogSection::KEYS,
        "TraceSection" => file::TraceSection::KEYS,
        "JwtSection" => file::JwtSection::KEYS,
        "IdentitySection" => file::IdentitySection::KEYS,
        "FieldForm" => file::FieldForm::KEYS,
        "CredentialSection" => file::CredentialSection::KEYS,
        "TagsSection" => file::TagsSection::KEYS,
        "DebugSection" => file::DebugSection::KEYS,
        "RouteSection" => file::RouteSection::KEYS,
        "PurgeSection" => file::PurgeSection::KEYS,
        "MatchSection" => file::MatchSection::KEYS,
        "SignedInForm" => file::SignedInForm::KEYS,
        "ExpectSection" => file::ExpectSection::KEYS,
        "OtherRequestSection" => file::OtherRequestSection::KEYS,
        "NotifySection" => file::NotifySection::KEYS,
        "SourceSection" => file::SourceSection::KEYS,
        "PurgeRequestsSection" => file::PurgeRequestsSection::KEYS,
        _ => &[],
    }
}

/// Implements `JsonSchema` for a type that is inlined in the schema.
macro_rules! inline {
    ($kind:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

inline!(TomlString, "Text", { "type": "string" });
inline!(Count, "Count", { "type": "integer", "minimum": 0 });
inline!(Fraction, "Share", { "type": "number", "minimum": 0, "maximum": 1 });
// Any string may contain variables, so the patterns accept them.
inline!(Period, "Period", {
    "title": "Duration",
    "type": "string",
    "pattern": "^(([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|.*\\$\\{.*)$",
    "minLength": 1,
    "examples": ["250ms", "5m", "1h30m"]
});
inline!(Size, "Size", {
    "title": "Size",
    "type": "string",
    "pattern": "^(0|[0-9]+([kMGT]B|[KMGT]iB|B)|.*\\$\\{.*)$",
    "examples": ["64MiB", "10kB", "0"]
});
inline!(QueryForm, "QueryForm", {
    "title": "`\"all\"`, `\"none\"`, list of strings or table",
    "oneOf": [
        { "type": "string", "enum": ["all", "none"] },
        { "type": "array", "items": { "type": "string", "minLength": 1 }, "uniqueItems": true },
        {
            "type": "object",
            "properties": {
                "only": {
                    "description": "Only these.",
                    "type": "array",
                    "items": { "type": "string", "minLength": 1 },
                    "uniqueItems": true
                },
                "except": {
                    "description": "All but these, where `*` stands for any text.",
                    "type": "array",
                    "items": { "type": "string", "minLength": 1 },
                    "uniqueItems": true
                },
                "order": {
                    "description": "Whether the order of parameters of different names counts.",
                    "type": "string",
                    "enum": ["keep", "ignore"],
                    "default": "keep"
                }
            },
            "not": { "required": ["only", "except"] },
            "minProperties": 1,
            "additionalProperties": false
        }
    ],
    "examples": [["page", "limit"], { "except": ["utm_*", "gclid", "fbclid"], "order": "ignore" }]
});

inline!(CompressForm, "CompressForm", {
    "title": "`\"zstd\"`, `\"off\"` or table",
    "oneOf": [
        { "type": "string", "enum": ["zstd", "off"] },
        {
            "type": "object",
            "properties": {
                "method": {
                    "description": "The method, or `off`.",
                    "type": "string",
                    "enum": ["zstd", "off"],
                    "default": "zstd"
                },
                "level": {
                    "description":
                        "How thoroughly. Above 9 it takes many times as long for little.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 19,
                    "default": 3
                },
                "min_size": {
                    "description": "The shortest body that is compressed.",
                    "type": "string",
                    "pattern": "^(0|[0-9]+([kMGT]B|[KMGT]iB|B)|.*\\$\\{.*)$",
                    "default": "1KiB"
                }
            },
            "minProperties": 1,
            "additionalProperties": false
        }
    ],
    "examples": ["zstd", { "method": "zstd", "level": 6, "min_size": "4KiB" }]
});

inline!(SecretsForm, "SecretsForm", {
    "title": "string or list of strings",
    "oneOf": [
        { "type": "string", "minLength": 1 },
        {
            "type": "array", "items": { "type": "string", "minLength": 1 },
            "minItems": 1, "maxItems": 8
        }
    ],
    "examples": ["${FLASK_SECRET_KEY}", ["${NEW_SECRET}", "${OLD_SECRET}"]]
});

inline!(NamesForm, "NamesForm", {
    "title": "string or list of strings",
    "oneOf": [
        { "type": "string", "minLength": 1 },
        {
            "type": "array", "items": { "type": "string", "minLength": 1 },
            "minItems": 1, "maxItems": 32, "uniqueItems": true
        }
    ],
    "examples": ["wordpress_logged_in_*", ["wordpress_logged_in_*", "comment_author_*"]]
});

inline!(StripForm, "StripForm", {
    "title": "`true`, `false` or list of strings",
    "oneOf": [
        { "type": "boolean" },
        { "type": "array", "items": { "type": "string", "minLength": 1 }, "uniqueItems": true }
    ],
    "examples": [["_ga", "pref_*"]]
});

inline!(TtlForm, "TtlForm", {
    "title": "duration, or table of statuses and durations",
    "oneOf": [
        {
            "type": "string",
            "pattern": "^(([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|.*\\$\\{.*)$",
            "minLength": 1
        },
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {
                "enum": [
                    "200", "203", "204", "300", "301", "302", "303", "307", "308", "404", "405",
                    "410", "414", "451", "501"
                ]
            },
            "additionalProperties": {
                "type": "string",
                "pattern": "^(([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|.*\\$\\{.*)$",
                "minLength": 1
            }
        }
    ],
    "examples": ["5m", { "200": "5m", "301": "1h", "404": "10s" }]
});
inline!(BrowserForm, "BrowserForm", {
    "title": "`\"no-store\"` or duration",
    "type": "string",
    "pattern": "^(no-store|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?|.*\\$\\{.*)$",
    "minLength": 1,
    "examples": ["no-store", "30s"]
});

inline!(TextsForm, "TextsForm", {
    "title": "string or list of strings",
    "oneOf": [
        { "type": "string" },
        {
            "type": "array", "items": { "type": "string" },
            "minItems": 1, "maxItems": 64, "uniqueItems": true
        }
    ]
});

inline!(ValueTable, "ValueTable", {
    "title": "table of names and values",
    "type": "object",
    "maxProperties": 16,
    "additionalProperties": {
        "oneOf": [
            { "type": "string" },
            {
                "type": "array", "items": { "type": "string" },
                "minItems": 1, "maxItems": 64, "uniqueItems": true
            }
        ]
    }
});

inline!(NamedTexts, "NamedTexts", {
    "title": "table of names and JSON pointers",
    "type": "object",
    "additionalProperties": { "type": "string", "pattern": "^/" }
});

inline!(SignatureChoice, "SignatureChoice", {
    "title": "string or table",
    "oneOf": [
        { "type": "string", "enum": ["github", "shopify", "slack", "standard", "stripe"] },
        {
            "type": "object",
            "properties": {
                "header": {
                    "description": "The header with the signature.",
                    "type": "string"
                },
                "prefix": {
                    "description": "What stands before it in the header.",
                    "type": "string",
                    "default": ""
                },
                "encoding": {
                    "description": "How it is written.",
                    "type": "string",
                    "enum": ["hex", "base64"],
                    "default": "hex"
                },
                "timestamp": {
                    "description": "The header with the time of sending, in seconds since 1970.",
                    "type": "string"
                },
                "signs": {
                    "description": "What is signed: a text with `{body}`, and with `{timestamp}`.",
                    "type": "string"
                }
            },
            "required": ["header"],
            "additionalProperties": false
        }
    ],
    "examples": ["github", { "header": "x-signature", "prefix": "sha256=" }]
});

impl JsonSchema for file::DefaultsSection {
    fn schema_name() -> Cow<'static, str> {
        "DefaultsSection".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // Each key is that of a route.
        let route = generator.subschema_for::<file::RouteSection>();
        let route = route.get("$ref").and_then(serde_json::Value::as_str).unwrap_or_default();
        let keys = file::RouteSection::KEYS.iter().filter(|key| !OWN_KEYS.contains(key));
        let properties: serde_json::Map<String, serde_json::Value> = keys
            .map(|key| {
                let place = format!("{route}/properties/{key}");
                ((*key).to_owned(), serde_json::json!({ "$ref": place }))
            })
            .collect();
        json_schema!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false
        })
    }
}

impl<T: JsonSchema> JsonSchema for Setting<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for TomlList<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

impl<T: JsonSchema> JsonSchema for NamedTable<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}
