/** Errors that are the user's to mend: what every face shows as one line, never as a stack trace. */

/** Bad input: says what was expected, what was found and where. */
export class InputError extends Error {
  override readonly name = 'InputError'
}

const explainThemselves: readonly string[] = ['InputError', 'BootError', 'OutOfBackingMemory']

/** Whether an error is about input (ours, a boot protocol's or a device's, more memory than there can be): its message explains it. */
export function isInputError(error: unknown): error is Error {
  return error instanceof Error && explainThemselves.includes(error.name)
}
