/** What few machines have, handed to those that need it (`needsParts` in bare-machine.ts): nobody has to load it for the others. */
export { createSvm } from '../virt/svm/create.ts'
export * as pc from '../platform/pc-parts.ts'
