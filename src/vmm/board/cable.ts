/** A network between guests: what one sends, all others hear, as on a hub. */
import type { Board } from './board.ts'

/** `network` is the name that the guests' network cards are plugged into. */
export function connectBoards(boards: readonly Board[], network: string): void {
  for (const board of boards) {
    board.onFrame = (from, bytes) => {
      if (from !== network) return
      for (const other of boards) if (other !== board) other.receive(network, bytes)
    }
  }
}
