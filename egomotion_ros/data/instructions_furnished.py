# Copyright 2026 The egomotion_ros authors
# SPDX-License-Identifier: Apache-2.0
"""More to say in furnished scenes: sentence patterns, lengths and angles, held-out verbs."""

from __future__ import annotations

#: Patterns added to those of simple scenes, by action; {o} object, {h} hand, {p} parameter.
TRAIN = {
    'walk_to': ('walk across to {o}', 'make your way to {o}', 'come to {o}', 'go up to {o}',
                'I want you to go to {o}', 'you should walk to {o}', 'get over to {o}',
                'move towards {o}', 'head towards {o}', 'come towards {o}'),
    'turn_to': ('turn your body to {o}', 'face towards {o}', 'turn around to {o}',
                'find {o}', 'look for {o}', 'look over at {o}', 'where is {o}'),
    'stop_at': ('go to {o} and wait there', 'walk to {o} and stay there',
                'come and stand in front of {o}', 'wait in front of {o}'),
    'walk_forward': ('walk {p}', 'walk {p} forward', 'go {p} forward', 'walk straight on {p}',
                     'take a walk of {p}'),
    'turn': ('turn {p}', 'turn your body {p}', 'rotate your body {p}', 'make a turn {p}'),
    'stand_still': ('stop', 'stay still', 'keep still', 'do nothing'),
    'reach': ('reach for {o} {h}', 'reach out to {o} {h}', 'touch {o} {h}',
              'put your hand on {o} {h}', 'reach to {o} {h}', 'go and touch {o} {h}',
              '{h} reach for {o}', 'please touch {o} {h}', 'take hold of {o} {h}',
              'get {o} {h}', 'hold {o} {h}'),
    'run_forward': ('run {p}', 'run forward {p}', 'run {p} forward', 'run straight ahead {p}',
                    'please run {p}', 'go running {p}'),
    'kick': ('kick {p}', 'do a kick {p}', 'kick a ball {p}', 'kick the air {p}',
             'please kick {p}', 'kick hard {p}', 'kick something {p}', 'show me a kick {p}'),
    'jump': ('jump', 'jump up', 'do a jump', 'please jump', 'jump once', 'jump in the air',
             'show me a jump', 'jump on the spot'),
    'bend': ('bend down', 'bend over', 'please bend down', 'bend your body forward',
             'bend down to the floor', 'bend forward', 'go down with your hands',
             'bend and come up again'),
}
TEST = {
    'walk_to': ('I want you to walk over to {o}', 'come over to {o}', 'stroll to {o}',
                'proceed to {o}', 'march over to {o}'),
    'turn_to': ('you should face {o}', 'orient yourself towards {o}', 'swivel towards {o}'),
    'stop_at': ('come to {o} and stop there', 'halt in front of {o}', 'proceed to {o} and halt'),
    'walk_forward': ('can you walk {p}', 'please go {p} straight ahead', 'march {p}',
                     'stroll ahead {p}'),
    'turn': ('can you turn your body {p}', 'now make a turn {p}', 'swivel {p}', 'pivot {p}'),
    'stand_still': ('you should stay still', 'freeze', 'remain where you are'),
    'wave': ('signal to me{h}',),
    'reach': ('can you reach for {o} {h}', 'please put your hand on {o} {h}',
              'now touch {o} {h}', 'grab {o} {h}', 'grasp {o} {h}'),
    'run_forward': ('can you run {p}', 'now run {p} straight ahead', 'jog {p}', 'sprint {p}'),
    'kick': ('can you kick {p}', 'now do a kick {p}', 'strike out {p}'),
    'jump': ('can you jump', 'now jump up once', 'leap', 'hop up'),
    'bend': ('can you bend down', 'now bend your body', 'stoop', 'lean down to the floor'),
}
#: A search is asked for in the words of the other actions: what is asked for is out of view.
_SEARCHED = ('walk_to', 'turn_to', 'stop_at', 'reach')
TRAIN['search'] = ('search for {o}', 'look around for {o}', 'go to {o}', 'walk to {o}',
                   'find {o}', 'look for {o}', 'turn to {o}', 'face {o}', 'where is {o}',
                   *(p for action in _SEARCHED for p in TRAIN[action]))
TEST['search'] = ('can you find {o}', 'now look for {o}', 'please search for {o}', 'locate {o}',
                  'seek {o}', *(p for action in _SEARCHED for p in TEST[action]))
#: Verbs that test sentences have and no training sentence.
HELD_OUT_VERBS = frozenset((
    'stroll', 'proceed', 'march', 'orient', 'swivel', 'halt', 'pivot', 'freeze', 'remain',
    'signal', 'grab', 'grasp', 'jog', 'sprint', 'strike', 'leap', 'hop', 'stoop', 'lean',
    'locate', 'seek'))

#: What a sentence without a measure means: metres of walking and running, by sentence.
MEANT = {
    'train': {
        'walk_forward': {
            2.0: ('walk', 'walk forward', 'go forward', 'move forward', 'walk ahead', 'go ahead',
                  'walk straight ahead', 'go straight', 'please walk forward', 'start walking',
                  'keep walking', 'keep going', 'go on'),
            1.5: ('walk a few steps', 'take a few steps', 'take a few steps forward',
                  'go a few steps forward'),
            0.5: ('take a step', 'take a step forward', 'step forward', 'walk a little',
                  'go forward a little', 'walk forward a bit', 'move forward a little',
                  'go ahead a little', 'please step forward', 'please walk a little')},
        'run_forward': {3.0: ('run', 'run forward', 'run ahead', 'go running', 'start running')},
    },
    'test': {
        'walk_forward': {
            2.0: ('can you walk forward', 'head straight ahead', 'please go forward',
                  'stroll ahead', 'walk on'),
            1.5: ('walk forward a few steps', 'please take a few steps'),
            0.5: ('please take a step forward', 'go a little forward')},
        'run_forward': {3.0: ('can you run', 'please run forward', 'now run')},
    },
}
for _split, _patterns in (('train', TRAIN), ('test', TEST)):
    for _action, _sentences in MEANT[_split].items():
        _patterns[_action] += tuple(s for several in _sentences.values() for s in several)
#: The measure (m) of each of these sentences.
UNMEASURED = {sentence: metres for split in MEANT.values() for values in split.values()
              for metres, sentences in values.items() for sentence in sentences}

_METRES = {1.0: ('one metre', '1 metre'), 1.5: ('one and a half metres', '1.5 metres'),
           2.0: ('two metres', '2 metres'), 2.5: ('two and a half metres', '2.5 metres'),
           3.0: ('three metres', '3 metres'), 3.5: ('three and a half metres', '3.5 metres'),
           4.0: ('four metres', '4 metres')}
_TURNS = {90: ('left', 'to the left', '90 degrees to the left', 'a quarter turn to the left'),
          180: ('around', 'by 180 degrees', 'all the way around', 'half way round'),
          30: ('slightly to the left', 'a little to the left', 'a bit to the left')}
for _degrees in (15, 30, 45, 60, 75, 90, 105, 120, 135, 150):
    _words = tuple(f'{_degrees} degrees {w}' for w in ('to the left', 'left')) + (
        f'left by {_degrees} degrees',)
    _TURNS[_degrees] = _TURNS.get(_degrees, ()) + _words
for _degrees in [d for d in _TURNS if d != 180]:
    _TURNS[-_degrees] = tuple(w.replace('left', 'right') for w in _TURNS[_degrees])
#: Name of the parameter and words of each of its values (m, degrees), by action.
PARAMETERS = {
    'walk_forward': ('distance', {0.5: ('half a metre', '0.5 metres'), **_METRES}),
    'run_forward': ('distance', {d: w for d, w in _METRES.items() if d >= 2.0}),
    'turn': ('angle', _TURNS),
    'kick': ('side', {'right': ('', 'with your right foot', 'with the right foot'),
                      'left': ('with your left foot', 'with the left foot')}),
}


def has_held_out_verb(text: str) -> bool:
    """Whether a sentence uses a verb that no training sentence has."""
    return not HELD_OUT_VERBS.isdisjoint(text.lower().split())
