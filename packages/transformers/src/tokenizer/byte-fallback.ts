const byteToken = /^<0x([0-9A-Fa-f]{2})>$/;

/** Every spelling of the tokens that stand for one byte, in vocabularies with byte fallback. */
export const byteTokenSpellings: readonly string[] = (() => {
  const digits = [...'0123456789ABCDEFabcdef'];
  return digits.flatMap((high) => digits.map((low) => `<0x${high}${low}>`));
})();

/**
 * Joins each run of byte tokens as the Rust library does: to its text when the run is valid UTF-8, else to one U+FFFD
 * for each byte of it, bytes of complete characters included.
 */
export function joinByteRuns(tokens: readonly string[]): string[] {
  const joined: string[] = [];
  let run: number[] = [];
  const endRun = () => {
    if (run.length > 0) for (const text of textsOf(run)) joined.push(text);
    run = [];
  };
  for (const token of tokens) {
    const byte = byteToken.exec(token);
    if (byte) run.push(Number.parseInt(byte[1], 16));
    else {
      endRun();
      joined.push(token);
    }
  }
  endRun();
  return joined;
}

function textsOf(bytes: readonly number[]): string[] {
  try {
    return [new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes))];
  } catch {
    return bytes.map(() => '\ufffd'); // not UTF-8: the only way that a fatal TextDecoder fails
  }
}
