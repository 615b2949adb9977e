/** A thread that compiles, without a thread: when its answers come does not depend on the time of day. */
import { Builder, type BackgroundBuilder, type Blueprint, type BuilderSetup, type BuiltModule } from '../../src/engine/jit/build.ts'

/** Orders and answers are copies, and answers come after so many looks for them, when code may have changed. */
export class LateBuilder implements BackgroundBuilder {
  private builder: Builder | undefined
  private readonly orders: { id: number; blueprints: readonly Blueprint[]; age: number }[] = []
  private readonly patience: number
  constructor(patience: number) {
    this.patience = patience
  }
  start(setup: BuilderSetup): void {
    this.builder = new Builder(structuredClone(setup))
  }
  submit(id: number, blueprints: readonly Blueprint[]): void {
    this.orders.push({ id, blueprints: structuredClone(blueprints), age: 0 })
  }
  take(): { id: number; built: BuiltModule | undefined }[] {
    const ready = this.orders.filter(order => ++order.age > this.patience)
    this.orders.splice(0, ready.length)
    return ready.map(({ id, blueprints }) => ({ id, built: this.builder!.build(blueprints) }))
  }
}
