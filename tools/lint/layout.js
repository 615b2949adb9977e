// The linter's own rule for how our code is laid out: no semicolons at line ends, single quotes, two spaces, 140 columns.
// It leaves tables that are aligned by hand alone, which a formatter would not.
const width = 140

function tokensOf(context, tokens) {
  tokens.forEach((token, i) => {
    const next = tokens[i + 1]
    if (token.type === 'Punctuator' && token.value === ';' && (!next || next.loc.start.line > token.loc.end.line)) {
      context.report({ loc: token.loc, message: 'no semicolon at the end of a line' })
    }
    if (token.type === 'String' && token.value.startsWith('"') && !token.value.includes("'")) {
      context.report({ loc: token.loc, message: 'strings take single quotes' })
    }
  })
}

function linesOf(context, lines) {
  lines.forEach((text, i) => {
    const loc = { start: { line: i + 1, column: 0 }, end: { line: i + 1, column: text.length } }
    const report = message => context.report({ loc, message })
    if (text.length > width) report(`the line has ${text.length} columns, at most ${width}`)
    if (/[ \t]$/.test(text)) report('spaces at the end of the line')
    if (/^ *\t/.test(text)) report('tab in the indentation')
  })
}

function statementsOf(context, nodes) {
  for (const node of nodes) {
    const { line, column } = node.loc.start
    const indentation = context.sourceCode.lines[line - 1].slice(0, column)
    if (/^ *$/.test(indentation) && column % 2) context.report({ node, message: 'indentation is a multiple of two spaces' })
  }
}

export default {
  meta: { name: 'layout' },
  rules: {
    layout: {
      create(context) {
        const body = node => statementsOf(context, node.body)
        return {
          Program(node) {
            tokensOf(context, node.tokens)
            linesOf(context, context.sourceCode.lines)
            body(node)
          },
          BlockStatement: body,
          ClassBody: body,
        }
      },
    },
  },
}
