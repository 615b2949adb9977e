/** An assembler for programs by chance: bytes, labels, and what refers to them. */
export class Assembler {
  readonly bytes: number[] = []
  private readonly labels = new Map<string, number>()
  private readonly fixes: { at: number; label: string; origin: number | undefined }[] = []
  put(...bytes: number[]): void {
    this.bytes.push(...bytes)
  }
  word(value: number): void {
    this.put(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24)
  }
  label(name: string): void {
    this.labels.set(name, this.bytes.length)
  }
  branch(opcode: readonly number[], label: string): void {
    this.put(...opcode, 0, 0, 0, 0)
    this.fixes.push({ at: this.bytes.length - 4, label, origin: undefined })
  }
  /** The address of a label in code that lies at `origin`, with so much added. */
  address(label: string, origin: number, more = 0): void {
    this.word(more)
    this.fixes.push({ at: this.bytes.length - 4, label, origin })
  }
  finish(): Uint8Array {
    const out = Uint8Array.from(this.bytes)
    const view = new DataView(out.buffer)
    for (const { at, label, origin } of this.fixes) {
      const target = this.labels.get(label)!
      view.setInt32(at, origin === undefined ? target - at - 4 : view.getInt32(at, true) + origin + target, true)
    }
    return out
  }
}
