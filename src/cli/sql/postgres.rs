//! The triggers by which a table of PostgreSQL tells of its changes.
//!
//! Invariants:
//! - A statement notifies once, whatever it changes, and not at all if it changes no row.
//! - SECURITY: what a row holds never adds a tag: white space in it is escaped, as templates escape
//!   it, and names and texts are quoted.
//! - A payload is shorter than PostgreSQL allows. More tags than fit are told by their templates,
//!   which purge the families.

use std::fmt::Write as _;

use super::tags::{ColumnTag, MAX_NAME, SqlTable, TagPart};

/// The longest payload, in bytes. PostgreSQL refuses 8000.
const MAX_PAYLOAD: usize = 7900;

/// How many tags one statement may name.
const MAX_TAGS: usize = 500;

/// The triggers, each with the rows that it sees.
const TRIGGERS: [(&str, &str, &str); 4] = [
    ("sidecache_insert", "INSERT", " REFERENCING NEW TABLE AS sidecache_new"),
    (
        "sidecache_update",
        "UPDATE",
        " REFERENCING OLD TABLE AS sidecache_old NEW TABLE AS sidecache_new",
    ),
    ("sidecache_delete", "DELETE", " REFERENCING OLD TABLE AS sidecache_old"),
    ("sidecache_truncate", "TRUNCATE", ""),
];

/// The pattern of what no tag has: white space and control characters.
const UNFIT: &str = "('[' || chr(1) || '-' || chr(32) || chr(127) || ']')";

/// What escapes the values of columns.
const ESCAPE: &str = "sidecache_escape";

/// The SQL that makes a table notify.
pub(super) fn triggers(table: &SqlTable, tags: &[ColumnTag], channel: &str) -> String {
    let (name, function) = (table_name(table), function_name(table));
    let escape = format!("{}.{}", identifier(&table.schema), identifier(ESCAPE));
    let texts: Vec<&str> = tags.iter().map(|tag| tag.text.as_str()).collect();
    let families = Some(texts.join(" ")).filter(|texts| texts.len() <= MAX_PAYLOAD);
    let families = literal(&families.unwrap_or_else(|| "*".to_owned()));
    let values: Vec<String> = tags.iter().map(|tag| format!("({})", value(tag, &escape))).collect();
    let values = values.join(",\n          ");
    let body = function_body(&families, &values, &literal(channel));
    let mut sql = format!(
        "-- Makes {name} tell of its changes, for a source of sidecache. Run it as the owner of \
         the table.\n-- It may be run again. `sidecache sql postgres --table … --drop` prints what \
         removes it.\nBEGIN;\n\n{}\nCREATE OR REPLACE FUNCTION {function}() RETURNS trigger\n\
         LANGUAGE plpgsql SET search_path = pg_catalog AS {};\n\n",
        escape_function(&escape),
        dollar_quoted(&body)
    );
    for (trigger, operation, rows) in TRIGGERS {
        let trigger = identifier(trigger);
        let _ = write!(
            sql,
            "DROP TRIGGER IF EXISTS {trigger} ON {name};\nCREATE TRIGGER {trigger} AFTER \
             {operation} ON {name}{rows}\n  FOR EACH STATEMENT EXECUTE FUNCTION {function}();\n"
        );
    }
    sql.push_str("\nCOMMIT;");
    sql
}

/// The SQL that removes it again.
pub(super) fn removal(table: &SqlTable) -> String {
    let name = table_name(table);
    let mut sql = "BEGIN;\n".to_owned();
    for (trigger, ..) in TRIGGERS {
        let trigger = identifier(trigger);
        let _ = writeln!(sql, "DROP TRIGGER IF EXISTS {trigger} ON {name};");
    }
    let _ = write!(sql, "DROP FUNCTION IF EXISTS {}();\nCOMMIT;", function_name(table));
    sql
}

/// What the function of the triggers does.
fn function_body(families: &str, values: &str, channel: &str) -> String {
    let changes = [
        ("IF", "INSERT", "SELECT * FROM sidecache_new"),
        ("ELSIF", "DELETE", "SELECT * FROM sidecache_old"),
        ("ELSIF", "UPDATE", "SELECT * FROM sidecache_old UNION ALL SELECT * FROM sidecache_new"),
    ];
    let read = changes.map(|(word, operation, rows)| {
        format!(
            "  {word} TG_OP = '{operation}' THEN\n    SELECT array_agg(tag) INTO named FROM \
             (\n      SELECT DISTINCT tag FROM ({rows}) AS changed,\n        LATERAL \
             (VALUES\n          \
             {values}\n        ) AS tags (tag)\n      LIMIT {}\n    ) AS first_tags;\n",
            MAX_TAGS + 1
        )
    });
    format!(
        "\nDECLARE\n  named text[];\n  payload text := {families};\nBEGIN\n{}  END IF;\n  IF \
         TG_OP <> 'TRUNCATE' THEN\n    IF named IS NULL THEN\n      RETURN NULL;\n    END \
         IF;\n    -- More tags than fit are told by what they have in common.\n    IF \
         cardinality(named) <= {MAX_TAGS}\n      AND octet_length(array_to_string(named, ' ')) \
         <= {MAX_PAYLOAD} THEN\n      payload := array_to_string(named, ' ');\n    END IF;\n  \
         END IF;\n  PERFORM \
         pg_notify({channel}, payload);\n  RETURN NULL;\nEND\n",
        read.concat()
    )
}

/// A body between dollar quotes that it does not contain.
fn dollar_quoted(body: &str) -> String {
    let mut quote = "$sidecache$".to_owned();
    while body.contains(&quote) {
        quote.insert(1, '_');
    }
    format!("{quote}{body}{quote}")
}

/// The function that makes a value a part of a tag, as templates do.
fn escape_function(name: &str) -> String {
    format!(
        "-- White space and control characters of a value are escaped, as %20: a row names no tag \
         of its own.\nCREATE OR REPLACE FUNCTION {name}(part text) RETURNS text\n\
         LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $sidecache$\n  \
         SELECT CASE WHEN part !~ {UNFIT} THEN part \
         ELSE (\n    SELECT string_agg(\n      CASE WHEN get_byte(bytes, place) BETWEEN 33 AND 126 \
         THEN chr(get_byte(bytes, place))\n      ELSE '%' || lpad(to_hex(get_byte(bytes, \
         place)), 2, '0') END,\n      '' ORDER BY place\n    )\n    FROM convert_to(part, \
         'UTF8') AS bytes,\n      \
         generate_series(0, octet_length(bytes) - 1) AS place\n  ) END\n$sidecache$;\n"
    )
}

/// The expression of a tag of a row. Where a column has no value, nobody can tell which entries
/// show the row, so the template stands for all of them.
fn value(tag: &ColumnTag, escape: &str) -> String {
    let parts = tag.parts.iter().map(|part| match part {
        TagPart::Text(text) => literal(text),
        TagPart::Column(column, false) => {
            escaped(&format!("nullif(changed.{}::text, '')", identifier(column)), escape)
        }
        TagPart::Column(column, true) => {
            escaped(&format!("coalesce(changed.{}::text, '')", identifier(column)), escape)
        }
    });
    let joined = parts.collect::<Vec<_>>().join(" || ");
    let may_be_null = tag.parts.iter().any(|part| matches!(part, TagPart::Column(_, false)));
    if may_be_null { format!("coalesce({joined}, {})", literal(&tag.text)) } else { joined }
}

/// A value as a part of a tag. The function is called where there is something to escape: it would
/// take most of the time of a statement that changes many rows.
fn escaped(value: &str, escape: &str) -> String {
    format!("CASE WHEN {value} ~ {UNFIT} THEN {escape}({value}) ELSE {value} END")
}

fn table_name(table: &SqlTable) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

/// The function of a table's triggers, whose name is as long as names may be.
fn function_name(table: &SqlTable) -> String {
    let mut name = format!("sidecache_notify_{}", table.name);
    if name.len() > MAX_NAME {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(table.name.as_bytes());
        name = format!("sidecache_notify_{}", crate::units::hex(&digest[..16]));
    }
    format!("{}.{}", identifier(&table.schema), identifier(&name))
}

/// A quoted name.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted text. A backslash means the same in it, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> SqlTable {
        SqlTable::parse(name, "public").expect("a table")
    }

    #[test]
    fn names_and_texts_are_quoted() {
        let tags = ["o'r:{a\"b}".to_owned()].map(|tag| ColumnTag::parse(&tag).expect("a tag"));
        let sql = triggers(&table("s.t\"x"), &tags, "ch'an");
        for part in [
            "ON \"s\".\"t\"\"x\"",
            "THEN \"s\".\"sidecache_escape\"(nullif(changed.\"a\"\"b\"::text, '')) ELSE",
            "pg_notify('ch''an', payload)",
            "payload text := 'o''r:{a\"b}';",
        ] {
            assert!(sql.contains(part), "{part}\n{sql}");
        }
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn a_long_name_has_a_function_with_a_name_that_fits() {
        let long = table(&"t".repeat(63));
        let name = function_name(&long);
        assert!(name.len() <= "\"public\".\"\"".len() + MAX_NAME, "{name}");
        assert!(removal(&long).contains(&name) && triggers(&long, &[], "c").contains(&name));
        assert_ne!(name, function_name(&table(&"t".repeat(62))));
    }
}
