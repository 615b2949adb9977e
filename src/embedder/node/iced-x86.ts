/** Loads the iced-x86 package for whoever disassembles first: most runs never do, and it takes 50 ms. Node.js documentation, "Modules". */
import { createRequire } from 'node:module'
import type * as Iced from 'iced-x86'

const require = createRequire(import.meta.url)
/** Undefined where there is none (src/insight/no-iced-x86.ts). */
export const load = (): typeof Iced | undefined => require('iced-x86') as typeof Iced
