/** What is to happen at a time: of each processor a list, whose first time its APIC timer is set to. */

export interface PendingAlarm {
  readonly at: number
  readonly callback: () => void
}

export class Alarms {
  private readonly list: PendingAlarm[] = []

  get next(): number {
    return this.list[0]?.at ?? Infinity
  }
  /** Of two with the same time the older one comes first. */
  add(at: number, callback: () => void): PendingAlarm {
    const alarm = { at, callback }
    let place = this.list.length
    while (place > 0 && this.list[place - 1].at > at) place--
    this.list.splice(place, 0, alarm)
    return alarm
  }
  remove(alarm: PendingAlarm): void {
    const place = this.list.indexOf(alarm)
    if (place >= 0) this.list.splice(place, 1)
  }
  /** Calls what is due. */
  fire(now: number): void {
    while (this.next <= now) this.list.shift()!.callback()
  }
}
