"""The words that the tokenizers of the mini base hold as single tokens, most important first."""

from sdxl_mel.corpus.instruments import INSTRUMENTS

CAPTIONS = """
a an and at by for from in of on over played playing the to together with without
instrumental solo melody harmony key major minor slow moderate fast baroque chorale folk
reel hornpipe jig strathspey march waltz tune mel spectrogram music
"""

MUSIC = """
acoustic air ambient ballad band bass bassoon beat bright brass calm choir chord chords classical cello dance
dark deep drum drums duet duo electric emotional energetic ensemble epic evening gentle gospel happy harmonies
high horn jazz key keyboard light loud low lively lute mandolin medium mellow melancholic melodic metal mood
morning music old orchestra organ pad percussion pluck pop quartet quick quiet rhythm rock romantic sad
saxophone shamisen simple slowly soft song sound string strings style sung synth synthesizer tempo tender trio
trombone tuba viola vocals voice warm woodwind xylophone bagpipe bell bells clear duets fiddle kalimba koto
ocarina recorder ukulele whistle
"""

WORDS = list(
    dict.fromkeys([*CAPTIONS.split(), *(word for name in INSTRUMENTS for word in name.split()), *MUSIC.split()])
)
