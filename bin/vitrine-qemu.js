#!/usr/bin/env node
// `vitrine qemu` as one word, for scripts that take the path of QEMU's program.
process.argv.splice(2, 0, 'qemu')
await import('./vitrine.js')
