/** What a guest has pending besides its VMCS, and what an exit records besides its reason. Intel SDM vol. 3, "VMX Non-Root Operation". */

/** `vmxFlags`: what a guest has pending besides its VMCS. */
export const vmxFlag = {
  operation: 1, trapPending: 2, evaluateTpr: 4, initHeld: 0x40, initTaken: 0x80, iretUnblocked: 0x100, busLocked: 0x200,
} as const
export const initFlags = vmxFlag.initHeld | vmxFlag.initTaken
/** Two bits: the inactive state that the guest has just left. */
export const inactiveShift = 4
export const inactiveMask = 3 << inactiveShift

/** What else an exit records. */
export interface ExitDetails {
  readonly length?: number
  readonly information?: number
  readonly interruption?: number
  readonly errorCode?: number
  readonly linear?: bigint
  /** An EPT violation that may become #VE instead. */
  readonly convertible?: boolean
  /** Trap-like: RIP is already that of the next instruction. */
  readonly trap?: boolean
}
