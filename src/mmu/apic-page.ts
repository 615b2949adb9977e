/**
 * A page of physical addresses at which a guest finds not memory but its virtual APIC. Intel SDM vol. 3, "Virtualizing Memory-Mapped APIC
 * Accesses".
 */

/** Works on the CPU whose state lies in the state area; its page is state.apicAccessPage. */
export interface ApicAccessPage {
  /** Whether the access can be made; false: an exit is kept for `SecondStage.exit`. */
  allows(offset: number, size: number, write: boolean): boolean
  /** An instruction is fetched there: an exit is kept. */
  fetched(offset: number): void
  read(offset: number, size: number): number
  write(offset: number, size: number, value: number): void
}
