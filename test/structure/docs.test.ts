/** What the documents say is there: paths, npm scripts and commands. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { files, read, root } from './repository.ts'

const documents = files.filter(file => file.endsWith('.md'))
const { scripts, bin } = JSON.parse(read('package.json')) as { scripts: Record<string, string>; bin: Record<string, string> }
const topFolders = new Set(files.filter(file => file.includes('/')).map(file => file.split('/')[0]))

/** Words in backquotes and targets of links that look like paths of ours. */
function pathsIn(text: string): string[] {
  const quoted = [...text.matchAll(/`([\w.@-]+(?:\/[\w.@-]*)+)`/g)].map(match => match[1])
    .filter(path => topFolders.has(path.split('/')[0]))
  const linked = [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)].map(match => match[1]).filter(target => !/^[a-z]+:/.test(target))
  return [...quoted, ...linked]
}

/** Commands in fenced blocks, with the prompt off. */
function commandsIn(text: string): string[] {
  const lines = [...text.matchAll(/```(?:sh|bash|console|shell)\n([^]*?)```/g)].flatMap(match => match[1].split('\n'))
  return lines.flatMap(line => line.replace(/^\$ /, '').split(/&&|\|/)).map(command => command.trim())
    .filter(command => /^(npx|npm|node)\b/.test(command))
}

describe('documents', () => {
  for (const document of documents) {
    test(`${document}: paths exist`, () => {
      const exists = (path: string): boolean => [join(root, path), join(root, dirname(document), path)].some(existsSync)
      assert.deepEqual(pathsIn(read(document)).filter(path => !exists(path)), [])
    })

    test(`${document}: commands exist`, () => {
      const wrong = commandsIn(read(document)).filter(command => {
        const [program, first, second] = command.split(/\s+/)
        if (program === 'npm') return !(first === 'ci' || first === 'test' || (first === 'run' && second in scripts))
        const file = program === 'npx' && first === 'node' ? second : first
        if (program === 'npx' && first !== 'node') return !(first in bin || ['tsc', 'oxlint'].includes(first))
        return !file.startsWith('-') && !existsSync(join(root, file))
      })
      assert.deepEqual(wrong, [])
    })
  }
})

test('the README has its two set-up commands', () => {
  const readme = read('README.md')
  for (const command of ['npm ci && npx vitrine vmm', 'npm ci && npm test']) assert.ok(readme.includes(`\n${command}\n`), command)
})
