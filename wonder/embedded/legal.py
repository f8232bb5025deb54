"""Wordings that carry legal risk, and decoys that sound like it; to expand (see `grammar`)."""

from typing import Final

LEGAL_WORDINGS: Final[tuple[str, ...]] = (
    "[my|our] <lawyer> [will|is going to|would like to] [contact|write to|call|get in touch with|be in touch with|sue|"
    "hear from] <company>[ about this| over this| soon||].",
    "[I have|I've|we have|I already have|I will have] [talked to|spoken to|consulted|hired|engaged|called|instructed|"
    "seen] [a|my|our] <lawyer>[ about this| and will not let this go| to deal with you||].",
    "[I will|I'll|we will|I am going to|I'm going to|we are about to|I intend to|I have decided to] sue <company>[ for "
    "this| for damages| over this| if nothing happens| for the burns| for negligence| for all it cost me||].",
    "[I will|I'll|we will|I am going to|we are going to|I'm ready to] take [you|this|your company|the matter] to "
    "[court|a judge|small claims court|the courts|the high court][ if I must| <week>||].",
    "[you will hear|you'll be hearing|expect to hear|you are going to hear] from my <lawyer>[ soon| about this| <week>|"
    "|].",
    "[expect|you can expect|get ready for|prepare for] [a lawsuit|legal action|legal steps|a court case|a letter from "
    "my lawyer|a claim for damages|a summons][ from me| over this||].",
    "[if|unless] [this is not solved|I don't hear from you|this is not settled|you don't pay|you do not act] <week>[,|"
    "] [I will|we will|I'll] [take legal action|go to court|get a lawyer|involve my lawyer|press charges|start legal "
    "proceedings|sue|report you].",
    "[I am|we are|I'm|my family is] [taking|considering|starting|preparing|planning] [legal action|legal steps|a "
    "lawsuit|legal proceedings|court proceedings|a claim][ against <company>| over this||].",
    "[I'm|I am|we are] [getting|bringing in|involving|calling in] [a|my|our] <lawyer>[ now| on this| unless you act|"
    "|].",
    "[this|the matter|my case|everything] [is|will be|is now] [in the hands of|with|being handled by|going to] [my|"
    "our] <lawyer>.",
    "[my|our] <lawyer> [says|tells me|thinks|believes|confirms|advised me] that [you are liable|you have to pay|this "
    "is illegal|you broke the law|we have a strong case|this is negligence|you are in breach of contract|I should "
    "press charges].",
    "[this is|what you do is|that's] [illegal|against the law|unlawful|a criminal offence|fraud|theft|a breach of "
    "contract|negligence][ and you know it| and I will act on it| and you will pay for it| and I have reported it].",
    "[you|your company] [broke|are breaking|have violated|violated|breached] [the law|consumer law|our contract|the "
    "contract|data protection law|my consumer rights|the GDPR][ and I will act| and will answer for it||].",
    "[I have|I've|we have|I will|I'm going to] [reported|report|complained about|denounced] [you|this|your company|"
    "your shop] to [the regulator|the ombudsman|trading standards|the consumer protection agency|the police|the "
    "authorities|the data protection authority|the safety board|the consumer council].",
    "[I am|I'm|we are] [reporting|denouncing] [you|this|your company|your shop] to [the regulator|the ombudsman|"
    "trading standards|the consumer protection agency|the police|the authorities|the data protection authority|the "
    "consumer association].",
    "[I have|I've|we have|I am|we are] [filed|filing|made|making|lodged|sent in] [a complaint|an official complaint|a "
    "report] [with|to] [the regulator|the ombudsman|consumer protection|the police|trading standards|the data "
    "protection office].",
    "the [regulator|ombudsman|police|data protection authority|consumer protection office|public prosecutor] [will "
    "look into|is looking into|has opened a case on|has been told about|is investigating|knows about] [this|you|your "
    "company].",
    "[I have|I've|we|I] [called|been to|gone to|went to|told|informed|contacted] the police[ about this| and filed "
    "charges| and reported the theft| because of you||].",
    "[I will|I'll|I want to|we will|I am going to|I intend to] press charges[ against <company>| for this| for fraud||"
    "].",
    "[I demand|we demand|I want|I am claiming|I claim|I will claim|I expect|we are asking for] [compensation|damages|"
    "{amount} in damages|compensation for the injury|compensation for my loss|money for my pain|payment of my medical "
    "bills][ from <company>||].",
    "[you are|your company is|we hold you|I hold you] [liable|responsible] for [the injury|my injuries|the damage to "
    "my house|the fire|the loss|the burns|the accident|the whole loss].",
    "<who> [was|were|got|has been] [injured|hurt|burned|burnt|scalded|cut|electrocuted|poisoned|badly hurt] [by|"
    "because of|using] <your> {item}[ and had to see a doctor| and is in hospital||].",
    "[your|the] {item} [burned|burnt|injured|hurt|cut|shocked|scalded|electrocuted] [me|my hand|my child|my daughter|"
    "my son|my wife|my arm|my face|one of our staff].",
    "[your|the|my] {item} [caught fire|exploded|blew up|went up in flames|burst into flames|started a fire|started to "
    "burn|set my curtains on fire|set the kitchen on fire|nearly burned down our house][ and hurt <who>| and I burned "
    "my hand||].",
    "[there was|we had|it caused|your {item} caused] a fire in [my|our] [kitchen|house|flat|office|garage|living "
    "room].",
    "[I|<who>] [got|had|suffered] [an electric shock|burns|a burn|cuts|an injury|injuries|a broken hand|a severe "
    "shock] [from your {item}|because of your {item}|from it|when it exploded|because of you].",
    "[I|<who>] [ended up|spent a night|is now|was taken] [in hospital|to hospital|in the emergency room|to the "
    "emergency room] because of [your {item}|the {item}|the smoke|the shock|your product].",
    "[the|my] [burns|injury|wound|shock] from [your|the] {item} [had to be treated in hospital|needed a doctor|will "
    "cost you|still hurts and you will pay].",
    "[you|your company|your staff] [gave|leaked|sold|sent|passed on|published|lost|shared] my [personal data|private "
    "data|address|medical data|bank details|personal information] [to strangers|to other people|without my consent|on "
    "the internet|to third parties][, which is illegal||].",
    "[strangers|other people|other customers|someone else] [can|could|were able to] [see|read] my [personal data|"
    "private data|address and bank details|medical records|personal information] [because of you|because of your leak|"
    "on your site].",
    "[this is|that's|you committed] [a breach|a violation] of [the GDPR|data protection law|privacy law|my privacy|our "
    "contract].",
    "[under|according to] [the GDPR|data protection law|consumer law|the law] [you must pay|you are liable|this is "
    "illegal|I can sue you|I claim damages].",
    "[see you|we will meet|we'll meet|I'll see you|let's meet] [in court|before a judge|before the court].",
    "[this is|consider this|take this as] [my final warning|a formal notice|the last warning|my last letter] before "
    "[legal action|I go to court|my lawyer takes over|court].",
    "[other customers and I|we|several of us|thousands of us] [are joining|will join|are starting] a class action[ "
    "against <company>||].",
    "[lawsuit|legal action|court case|police report|lawyer informed|lawyer contacted][ is coming| will follow| filed| "
    "over the {item}||].",
    "[my|our] insur[er|ance] [will|wants to] [claim|recover|get] [the damage|the loss|the cost of the fire] from "
    "<company>.",
    "[I was|we were|customers were] [cheated|scammed|defrauded|robbed] and [the police|my lawyer|a court|the "
    "prosecutor] [will hear about it|has been told|is going to deal with it].",
)
"""Legal risk: a threat, a report to an authority, an injury, a fire, a leak or a claim against the company."""

DECOY_WORDINGS: Final[tuple[str, ...]] = (
    "I [am|work as] [a|the] [lawyer|solicitor|judge|attorney|policeman|police officer|paralegal|doctor|nurse|"
    "firefighter|notary|court clerk|data protection officer][ myself| by trade| in {city}||].",
    "[my|our] [sister|husband|wife|neighbour|daughter|son|friend|brother|uncle] is [a lawyer|a solicitor|an attorney|a "
    "judge|with the police|a doctor|a law student|a firefighter|at law school][ and likes your {item}| and uses the "
    "same {item}||].",
    "[we are|I write for|this is for|I work for|I order for] [a law firm|a lawyer's office|a court|the police|a "
    "hospital|the fire brigade|an ombudsman|an insurance company|a regulator|a legal publisher].",
    "[please|can you] [deliver|bring|send] it to the [court house|police station|hospital|fire station|law school|"
    "courtyard].",
    "[our|my] [office|flat|shop] is [next to|above|opposite|behind] the [police station|court|hospital|law school|fire "
    "station|solicitor's office].",
    "[the|this] {item} is for [a tennis court|the waiting room of a lawyer|the police canteen|our law library|the "
    "hospital|a courtroom|the basketball court|the fire brigade].",
    "[I have|I|we] [read|accepted|agreed to|know] [your|the] [terms and conditions|legal notice|privacy policy|terms|"
    "data protection notice|GDPR notice|contract].",
    "[our|the|my] [full legal name|legal address|legal form|legal name|registered office] is [in {city}|on the letter|"
    "different|new].",
    "[my|our] lawyer [friend|neighbour|cousin] [recommended you|told me about your shop|is happy with your {item}].",
    "[nobody|no one] [was hurt|got hurt|was injured], [do not worry|luckily|so all is fine|it is only annoying].",
    "[I have no|I don't have any|there is no] [complaint|claim|legal question|injury], [I only ask|I just want to know|"
    "just a question].",
    "I [hurt my back|injured my knee|broke my arm|have a sports injury|was in hospital] [last month|playing football|"
    "skiing|for another reason] and [can't carry much|cannot drive|stay at home].",
    "[I watched|I am watching|I read] [a court drama|a crime series|a book about a lawyer|a film about the police].",
    "[the|my|our] [smoke detector|fire alarm|fireplace|fire extinguisher|fire tablet|firewall] [is next to it|is not "
    "the problem|works fine|hangs above it].",
    "[the|our] [contract|agreement] [runs until {month}|is from {month}|has been signed|is fine|has number {number}].",
    "[I|we] [claim|get] [the student discount|a bonus|the teacher discount|a voucher] [every year|each {month}|as "
    "always].",
    "[who|where] is your [data protection officer|privacy policy|legal notice|legal department], [just out of interest|"
    "I only wonder|my boss asks].",
    "[the|a] police [car|van] was [blocking our street|in front of our house], [so I was late|nothing serious].",
    "I [burned|burnt] [a CD|my toast|the dinner] [yesterday|again|while I was on hold with you].",
    "[it is|that's] [legal|allowed|not against the law] [here|where I live], [of course|as far as I know|I checked].",
)
"""Sentences that sound legal and carry no legal risk."""

NEW_LEGAL: Final[tuple[str, ...]] = (
    "Expect a letter from our legal counsel.",
    "I am going to bring this before a judge.",
    "My wife was hurt when the {item} exploded.",
    "My medical file was visible to other customers of yours.",
    "We hold your company liable for every penny we lost.",
    "I have lodged a complaint with the authorities.",
    "A tribunal will have to decide about this.",
    "I was burned by the {item} and my lawyer wants your answer.",
    "This is fraud and the police know about it.",
    "My solicitor is preparing a claim for compensation.",
    "The next letter you get will have a stamp of the court on it.",
    "You have until {day}, then my barrister takes over.",
    "The paramedics had to come because of your {item}.",
    "Smoke from the {item} filled the house and my father could not breathe.",
    "The watchdog for consumers has all my papers about you.",
    "What you did with my private data will cost you a fine.",
    "An officer took down my statement against you.",
    "I have the scars from your {item} to show to a jury.",
)
"""Legal risk in sentences that no split uses: for measuring whether a probe knows more than its sentences."""

NEW_DECOYS: Final[tuple[str, ...]] = (
    "I am a solicitor, but this is for my kitchen.",
    "The court usher in our town has the same {item}.",
    "It goes to the law library on the second floor.",
    "My doctor uses the {item} too.",
    "I work for the police in {city} and can only call in the evening.",
    "Your legal notice has a spelling mistake.",
    "We print the forms of the data protection authority.",
    "I claim nothing, I only ask.",
    "The fire brigade next door says hello.",
    "An attorney in {city} told me that you have good prices.",
    "I spent my holidays with a judge and we talked about your {item}.",
    "We play squash on court {count} every {day}.",
    "The hospital shop sells your {item} as well.",
    "Somebody parked a police car on our lawn, never mind.",
    "In my law exam there was a question about shops like yours.",
    "The wood in our fire place is damp, by the way.",
    "As a notary I write many letters like this one.",
    "My knee was operated on after an accident, so I walk slowly to the door.",
)
"""Decoys in sentences that no split uses."""
