/** Errors that are the user's to mend: what every face shows as one line, never as a stack trace. */

/** Bad input: says what was expected, what was found and where. */
export class InputError extends Error {
  override readonly name = 'InputError'
}

/** Whether an error is about input (ours, a boot protocol's or a device's), and so explains itself in its message. */
export function isInputError(error: unknown): error is Error {
  return error instanceof Error && (error.name === 'InputError' || error.name === 'BootError')
}
