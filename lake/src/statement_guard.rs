//! Refuses statements that change something or that would take too much to plan.

use datafusion::{
    common::DataFusionError,
    execution::context::SQLOptions,
    sql::{
        parser::Statement,
        sqlparser::{
            self,
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};

use crate::sql_error::SqlError;

/// The size of a statement.
const MAX_STATEMENT_BYTES: usize = 2 << 20;
/// The operators of a statement: each is a level of its plan, and each level takes stack.
const MAX_OPERATORS: usize = 2_000;

/// Whether a statement only reads, by its kind. Its plan is checked as well.
fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Explain(explained) => only_reads(&explained.statement),
        Statement::Statement(statement) => matches!(
            **statement,
            sqlparser::ast::Statement::Query(_)
                | sqlparser::ast::Statement::ExplainTable { .. }
                | sqlparser::ast::Statement::ShowTables { .. }
                | sqlparser::ast::Statement::ShowColumns { .. }
                | sqlparser::ast::Statement::ShowFunctions { .. }
        ),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// Refuse a statement that changes something.
pub(crate) fn refuse_changes(statement: &Statement) -> Result<(), SqlError> {
    if only_reads(statement) {
        return Ok(());
    }
    Err(SqlError::ReadOnly { what: first_words(statement) })
}

/// The first two words of a statement, which name what it does.
pub(crate) fn first_words(statement: &Statement) -> String {
    statement.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Refuse a statement with too many bytes or operators.
pub(crate) fn refuse_large(sql: &str) -> Result<(), SqlError> {
    if sql.len() > MAX_STATEMENT_BYTES {
        let message = format!("a statement has at most {MAX_STATEMENT_BYTES} bytes; bring a list as a parameter");
        return Err(SqlError::Invalid { source: Box::new(DataFusionError::Plan(message.clone())), message, at: None });
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let chains = |token: &&Token| match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::AT
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::EXCEPT
                | Keyword::ILIKE
                | Keyword::INTERSECT
                | Keyword::IS
                | Keyword::JOIN
                | Keyword::LIKE
                | Keyword::NOT
                | Keyword::NOTNULL
                | Keyword::OR
                | Keyword::OVERLAPS
                | Keyword::RLIKE
                | Keyword::SIMILAR
                | Keyword::UNION
                | Keyword::XOR
        ),
        Token::Number(..) | Token::Char(_) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) => false,
        Token::EscapedStringLiteral(_) | Token::NationalStringLiteral(_) | Token::HexStringLiteral(_) => false,
        Token::DollarQuotedString(_) | Token::UnicodeStringLiteral(_) | Token::Placeholder(_) => false,
        Token::Comma | Token::Whitespace(_) | Token::LParen | Token::RParen | Token::SemiColon | Token::EOF => false,
        // The dot of a name, and what closes.
        Token::Period | Token::RBracket | Token::RBrace => false,
        _ => true,
    };
    let found = tokens.iter().filter(chains).count();
    if found > MAX_OPERATORS {
        let message =
            format!("the statement has {found} operators, and may have {MAX_OPERATORS}; a list is shorter: x IN (…)");
        return Err(SqlError::Invalid { source: Box::new(DataFusionError::Plan(message.clone())), message, at: None });
    }
    Ok(())
}

/// Options under which a plan may only read.
pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}
