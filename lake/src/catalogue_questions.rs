//! What clients of Postgres ask of its catalogue, put so that the engine can plan it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, Value,
        visit_expressions_mut,
    },
    parser::ParserError,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;

/// What clients of Postgres ask of its catalogue in words that the engine does not know, and the same for what is here.
const REPHRASED: [(&str, &str); 20] = [
    // pgAdmin, JDBC: what a comment is of, by a name that Postgres finds without its schema.
    ("'pg_class'::regclass", "'pg_catalog.pg_class'::regclass"),
    ("'pg_namespace'::regclass", "'pg_catalog.pg_namespace'::regclass"),
    ("'pg_database'::regclass", "'pg_catalog.pg_database'::regclass"),
    // pgAdmin: the settings, as what a function gives, and one that it sets.
    ("pg_show_all_settings()", "pg_catalog.pg_settings"),
    ("set_config('bytea_output','hex',false)", "'hex'"),
    // JDBC: how many columns an index has at most, and which way round; types that are no table's own.
    ("tmp.I_INDOPTION[tmp.ORDINAL_POSITION - 1] & 1::smallint", "0"),
    ("SELECT setting FROM pg_catalog.pg_settings WHERE name='max_index_keys'", "SELECT '32' AS setting"),
    ("(SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)", "false"),
    // psql's \\d+: a table's storage options.
    (
        "pg_catalog.array_to_string(c.reloptions || array(select 'toast.' || x from pg_catalog.unnest(tc.reloptions) x), ', ')",
        "NULL::text",
    ),
    // ADBC: types by the functions that read and write them, which have names and no numbers here.
    ("(typreceive != 0 OR typsend != 0)", "true"),
    // SQLAlchemy: schemas whose names do not begin with pg_, escaped its own way; those that do are shown too.
    (" ESCAPE '/'", ""),
    // JDBC: the columns of references, of which there are none; which types are lists, by a function that has a name and no number.
    ("con.confkey[pos.n]", "NULL::smallint"),
    ("con.conkey[pos.n]", "NULL::smallint"),
    ("'pg_catalog.array_in'::regproc", "'array_in'"),
    ("'array_in'::regproc", "'array_in'"),
    // JDBC: who may do what, which is not kept here (nothing said is the owner's all), and procedures, with columns that have no name.
    (",r.rolname,c.relacl", ",r.rolname,NULL::text AS relacl"),
    ("PROCEDURE_NAME, NULL, NULL, NULL,", "PROCEDURE_NAME, NULL AS a, NULL AS b, NULL AS c,"),
    // SQLAlchemy: the columns of indexes, of which there are none.
    ("unnest(pg_catalog.pg_index.indkey)", "NULL::smallint"),
    ("unnest(pg_catalog.pg_index.indclass)", "NULL::bigint"),
    ("pg_catalog.pg_class.reloptions", "NULL::text"),
];

/// Whether a text is one of those that clients of Postgres ask of its catalogue: only they are put in other words, as
/// that does not keep what every query means.
pub(crate) fn asks(sql: &str) -> bool {
    let sql = sql.to_lowercase();
    ["pg_", "regclass", "regtype", "current_user", "session_user", "abort"].iter().any(|word| sql.contains(word))
}

/// The statements of such a text.
pub(crate) fn parse(postgres: &PostgresCompatibilityParser, sql: &str) -> Result<Vec<Statement>, ParserError> {
    let plainer = REPHRASED.iter().fold(sql.to_owned(), |sql, (asked, put)| sql.replace(asked, put));
    let mut statements = postgres.parse(&plainer)?;
    if sql.contains("pg_catalog.") {
        statements.iter_mut().for_each(without_what_is_not_here);
    }
    Ok(statements)
}

/// What a client asks of the catalogue and nothing here has, as nothing: in a case that never is, of sequences, collations,
/// defaults and memberships; and the columns of a key or an index, as fields of a row. The engine cannot plan such questions.
fn without_what_is_not_here(statement: &mut Statement) {
    let is_list_of_rows = |function: &Function| matches!(function.args, FunctionArguments::Subquery(_));
    let is_nothing = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => value.value == Value::Null,
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(function))) => is_list_of_rows(function),
        _ => false,
    };
    // Of a key's columns: (…).n is its place, (…).x the column's number.
    let is_place = |access: &AccessExpr| match access {
        AccessExpr::Dot(Expr::Identifier(name)) => ["n", "x"].contains(&name.value.to_lowercase().as_str()),
        _ => false,
    };
    let _ = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Case { conditions, .. } => {
                let _ = visit_expressions_mut(conditions, |inner| {
                    let is_asked = match inner {
                        Expr::Subquery(_) => true,
                        // One of the rows of a query, as the parser puts it.
                        Expr::Function(function) => {
                            let arguments = match &function.args {
                                FunctionArguments::List(list) => list.args.as_slice(),
                                _ => &[],
                            };
                            is_list_of_rows(function)
                                || (function.name.to_string() == "array_contains" && arguments.iter().any(is_nothing))
                        }
                        _ => false,
                    };
                    if is_asked {
                        *inner = Expr::Value(Value::Null.into());
                    }
                    ControlFlow::<()>::Continue(())
                });
            }
            Expr::CompoundFieldAccess { root, access_chain }
                if matches!(**root, Expr::Nested(_)) && access_chain.iter().all(is_place) =>
            {
                *expression = Expr::Value(Value::Null.into());
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}
