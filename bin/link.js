// Puts our own command among the project's: npx then finds it at once, instead of making a package out of the folder first.
import { mkdirSync, rmSync, symlinkSync } from 'node:fs'

const bin = new URL('../node_modules/.bin/', import.meta.url)
if (process.platform !== 'win32') {
  mkdirSync(bin, { recursive: true })
  rmSync(new URL('vitrine', bin), { force: true })
  symlinkSync('../../bin/vitrine.js', new URL('vitrine', bin))
}
